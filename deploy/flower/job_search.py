"""Finds jobs for the page of jobs: by id, asset, file name, error code, worker or kind, and by time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Final

from pydantic import ValidationError

from deploy.flower.job_index import MOST, Entry, JobIndex, Wanted
from tasks.assets.records import AssetRecords
from tasks.documents import read_result
from tasks.errors import AiiError, InvalidAssetId, JobMissing, NotFound
from tasks.ledger.operations import Operations
from tasks.ledger.records import JobRecord, record_of_result
from tasks.names import JOB_ID_PATTERN
from tasks.storage import ObjectStore

__all__ = ["Found", "find_job", "search_jobs"]

_SHOWN: Final = 100


@dataclass(frozen=True)
class Found:
    """Jobs, newest first, and of each state among how many they were looked for."""

    jobs: list[JobRecord]
    scanned: int


def search_jobs(
    index: JobIndex, operations: Operations, store: ObjectStore, collections: Sequence[str], wanted: Wanted
) -> Found:
    """The latest jobs that fit, a hundred at most; of those that the ledger has forgotten, the one of a job's whole id
    and those of an asset's whole id.

    Raises:
        RedisUnavailable: Redis does not answer.
        StorageUnavailable: S3 does not answer, and was needed.
    """
    records = list(islice(index.search(wanted), _SHOWN))
    if not records and wanted.text:
        known = [*_forgotten(operations, store, wanted.text), *_of_asset(operations, store, collections, wanted.text)]
        records = [record for record in known if wanted.fits(Entry.of(record))]
    records.sort(key=lambda record: -(record.finished_at or record.submitted_at))
    return Found(records, MOST)


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
    with suppress(NotFound, ValidationError):
        return [find_job(operations, store, text)] if re.fullmatch(JOB_ID_PATTERN, text) else []
    return []


def _of_asset(operations: Operations, store: ObjectStore, collections: Sequence[str], asset_id: str) -> list[JobRecord]:
    found = []
    for collection in collections:
        with suppress(InvalidAssetId):
            if record := AssetRecords(store, collection).newest(asset_id):
                with suppress(AiiError):  # its document was purged
                    found.append(find_job(operations, store, record.job_id))
    return found
