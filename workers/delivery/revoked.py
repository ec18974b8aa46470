"""What is revoked by Celery's remote control, the button of Flower's own pages for instance, is a cancelled job.

Celery's own command makes every worker remember the id for three hours, and leave out the job's messages. The ledger
would take them for lost and send them again in vain, and a job that is retried meanwhile would never run. So the
command is replaced: no worker remembers anything, and the first one that hears of it cancels the job.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Sequence
from typing import Any, Final

from celery.worker.control import control_command

from tasks.errors import AiiError, Conflict, JobMissing
from tasks.ledger.operations import Operations
from tasks.ledger.states import JobState
from tasks.storage import ObjectStore

__all__ = ["Revocations"]

logger = logging.getLogger(__name__)

_MOST_PENDING: Final = 50_000  # as many as Celery would remember


class Revocations:
    """Cancels queued jobs in a thread of its own: a lane that hears of them must not wait for Redis and S3."""

    def __init__(self, operations: Operations, store: ObjectStore) -> None:
        self._operations = operations
        self._store = store
        self._pending: queue.Queue[str] = queue.Queue(_MOST_PENDING)
        self._thread = threading.Thread(target=self._cancel_all, name="cancel-revoked", daemon=True)

    def replace_celerys(self) -> None:
        """From now on, all lanes of this process have our command in the place of Celery's."""
        self._thread.start()
        control_command(name="revoke", variadic="task_id", signature="[id1 [id2 [... [idN]]]]")(self.revoke)

    def revoke(self, state: Any, task_id: str | Sequence[str], **_: Any) -> dict[str, str]:
        """Cancel the jobs of these ids that are queued. Those that run go on, whatever signal is asked for."""
        ids = [task_id] if isinstance(task_id, str) else list(map(str, task_id))
        try:
            for job_id in ids:
                self._pending.put_nowait(job_id)
        except queue.Full:
            return {"error": "Too many jobs are being cancelled: try again later."}
        return {"ok": f"Jobs that will be cancelled if they are queued: {', '.join(ids)}"}

    def _cancel_all(self) -> None:
        while True:
            job_id = self._pending.get()
            try:
                self._cancel(job_id)
            except Exception:
                logger.exception("A revoked job could not be cancelled", extra={"job_id": job_id})

    def _cancel(self, job_id: str) -> None:
        try:
            if self._operations.job(job_id).state is not JobState.QUEUED:
                return  # it runs or has ended, or another worker that heard the same was faster
            self._operations.cancel(job_id, self._store)
        except (Conflict, JobMissing) as error:
            logger.info("A revoked job is not cancelled: %s", error, extra={"job_id": job_id})
        except AiiError as error:
            logger.warning(
                "A revoked job could not be cancelled, use `aii jobs cancel`: %s", error, extra={"job_id": job_id}
            )
