"""A producer for tests of applications: no Redis, no S3, no worker; jobs end at once, in this process.

    from producer.testing import FakeProducer

    producer = FakeProducer()
    result = producer.activate(image, asset_id="photo-17").wait()

It is the real :class:`Producer` over services in memory, so that requests are checked, named and found again as they
are with the real ones. What workers do is only hinted at: a protected file is the original, an image is a copy of
another if their bytes are equal, and files are known by their first bytes.
"""

from __future__ import annotations

from typing import Any, cast

from producer.client import Producer
from producer.testing.services import MemoryLedger, MemoryStore
from producer.testing.work import Work
from tasks.app import Sender
from tasks.errors import AiiError, Cancelled, Conflict
from tasks.ledger.ledger import Ledger
from tasks.ledger.states import JobState
from tasks.settings import Settings
from tasks.storage import ObjectStore

__all__ = ["FakeProducer"]


class FakeProducer(Producer):
    """As :class:`Producer`, without services. Thread-safe.

    Args:
        hold: leave jobs in their queue until :meth:`run`, to see what the application does meanwhile.
        default_collection: that of requests that name none; there is every collection.
    """

    def __init__(self, *, hold: bool = False, default_collection: str = "starter") -> None:
        settings = Settings(_env_file=None, default_collection=default_collection)  # type: ignore[call-arg]
        self.memory = MemoryStore()
        self._jobs = MemoryLedger(Work(self.memory, settings.max_image_bytes).done, self.memory, hold=hold)
        super().__init__(settings, cast(ObjectStore, self.memory), cast(Ledger, self._jobs), cast(Sender, _NoSender()))

    def run(self) -> None:
        """Do the jobs that are held."""
        self._jobs.run()

    def fail_next(self, error: AiiError) -> None:
        """Let the next job that is done fail with this error."""
        self._jobs.fail_next(error)

    def put_object(self, bucket: str, key: str, data: bytes) -> None:
        """Store what ``s3://BUCKET/KEY`` names; any bucket may be read from."""
        self.memory.sources[bucket, key] = data

    def cancel(self, job_id: str) -> JobState:
        before = self.ledger.get(job_id).state
        if before.closed:
            raise Conflict(f"Job {job_id} has ended already.")
        self._jobs.end(job_id, Cancelled("Cancelled by an operator: submit it again, or `aii jobs retry` it."))
        return before


class _NoSender:
    """Jobs are done when the ledger takes them: there is no message to send, and nothing to trace."""

    tracer = None

    def send(self, *_: Any) -> None:
        pass
