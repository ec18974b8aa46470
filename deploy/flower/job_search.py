"""Finds jobs for the page of jobs: by id, asset, file name, error code, worker or kind, and by time."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from tasks.assets.records import AssetRecords
from tasks.documents import read_result
from tasks.errors import AiiError, InvalidAssetId, InvalidRequest, JobMissing
from tasks.kinds import title_of
from tasks.ledger.operations import Operations
from tasks.ledger.records import JobRecord, record_of_result
from tasks.ledger.states import JobState
from tasks.storage import ObjectStore

__all__ = ["Found", "Wanted", "find_job", "search_jobs"]

_SCANNED: Final = 1_000  # of each state: a tenth of a second on an idle core
_SHOWN: Final = 100


@dataclass(frozen=True)
class Wanted:
    """What is searched for: `text` in any of a job's words, a state ("" for all), and the time in which it was
    submitted or ended, in seconds since the epoch."""

    text: str = ""
    state: str = ""
    since: float | None = None
    until: float | None = None

    def fits(self, record: JobRecord) -> bool:
        """Whether a job is one of those."""
        words = (
            record.job_id, record.asset_id, record.name, record.error_code, record.worker, record.task,
            title_of(record.task), record.queue,
        )  # fmt: skip
        at = record.finished_at or record.submitted_at
        return (
            any(self.text.lower() in word.lower() for word in words if word)
            and (self.since is None or at >= self.since)
            and (self.until is None or record.submitted_at <= self.until)
        )


@dataclass(frozen=True)
class Found:
    """Jobs, newest first, and of each state how many were read for them."""

    jobs: list[JobRecord]
    scanned: int


def search_jobs(operations: Operations, store: ObjectStore, collections: Sequence[str], wanted: Wanted) -> Found:
    """The latest jobs that fit, a hundred at most; of those that the ledger has forgotten, the one of a job's whole id
    and those of an asset's whole id.

    Raises:
        RedisUnavailable: Redis does not answer.
        StorageUnavailable: S3 does not answer, and was needed.
    """
    states = [JobState(wanted.state)] if wanted.state else list(JobState)
    scanned = _SHOWN if wanted == Wanted(state=wanted.state) else _SCANNED
    records = [record for state in states for record in operations.jobs(state, scanned) if wanted.fits(record)]
    if not records and wanted.text:
        records = [*_forgotten(operations, store, wanted.text), *_of_asset(operations, store, collections, wanted.text)]
    records.sort(key=lambda record: -(record.finished_at or record.submitted_at))
    return Found(records[:_SHOWN], scanned)


def find_job(operations: Operations, store: ObjectStore, job_id: str) -> JobRecord:
    """One job, from the ledger or, once that has forgotten it, from its document.

    Raises:
        NotFound: neither knows it.
    """
    try:
        return operations.job(job_id)
    except JobMissing:
        return record_of_result(read_result(store, job_id))


def _forgotten(operations: Operations, store: ObjectStore, text: str) -> list[JobRecord]:
    with suppress(JobMissing, InvalidRequest, ValueError):
        return [find_job(operations, store, operations.find(text.strip()))]
    return []


def _of_asset(operations: Operations, store: ObjectStore, collections: Sequence[str], asset_id: str) -> list[JobRecord]:
    found = []
    for collection in collections:
        with suppress(InvalidAssetId):
            if record := AssetRecords(store, collection).newest(asset_id):
                with suppress(AiiError):  # its document was purged
                    found.append(find_job(operations, store, record.job_id))
    return found
