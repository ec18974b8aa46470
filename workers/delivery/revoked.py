"""What is revoked by Celery's remote control, the button of Flower's own pages for instance, is cancelled.

Celery only leaves out the message, for as long as the process that was told remembers it. The ledger would take the
job's message for lost and send it again, in vain for hours.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from celery.signals import task_revoked

from tasks.errors import AiiError, Conflict, JobMissing
from tasks.ledger.operations import Operations
from tasks.storage import ObjectStore

__all__ = ["cancel_revoked"]

logger = logging.getLogger(__name__)


def cancel_revoked(operations: Operations, store: ObjectStore) -> None:
    """From now on, cancel in the ledger what is revoked while it waits. One that runs already goes on."""

    def cancel(job_id: str) -> None:
        try:
            operations.cancel(job_id, store)
        except (Conflict, JobMissing) as error:
            logger.info("A revoked job is not cancelled: %s", error, extra={"job_id": job_id})
        except AiiError as error:  # its message is sent again, and revoked again
            logger.warning("A revoked job could not be cancelled: %s", error, extra={"job_id": job_id})

    def revoked(request: Any = None, terminated: bool = False, **_: Any) -> None:
        if request is not None and not terminated:  # not in the lane's own thread, which Redis and S3 would hold up
            threading.Thread(target=cancel, args=(request.id,), name="cancel-revoked", daemon=True).start()

    task_revoked.connect(revoked, weak=False, dispatch_uid="aii.cancel")
