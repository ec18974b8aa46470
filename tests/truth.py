"""One asset, one truth: whether documents, files, journal and ledger say the same of every job."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tasks.assets.records import AssetRecords
from tasks.connection import RedisClient, connect_redis
from tasks.documents import document_keys, read_result
from tasks.errors import AiiError
from tasks.ledger.keys import JournalKeys
from tasks.ledger.ledger import Ledger
from tasks.ledger.records import JobRecord
from tasks.ledger.states import JobState
from tasks.results import ActivationResult, FailureResult
from tasks.settings import Settings
from tasks.storage import Bucket, ObjectStore
from workers.index.collection.journal import Journal

__all__ = ["disagreements"]

_LARGEST = 2**28


def disagreements(settings: Settings, collection: str, job_ids: Iterable[str]) -> list[str]:
    """What is wrong with accepted activations of one collection; Redis must not have been emptied meanwhile.

    Each has ended, with one document for each time it ended. A good one's file has the document's digest, its asset's
    newest record is of the job that the journal names, and the journal's current entry is the document's; or else the
    ledger says by which job it was superseded, up to the one that the journal names, or that the asset was removed.
    """
    store, ledger = ObjectStore.connect(settings), Ledger.connect(settings)
    numbers = list(document_keys(store))
    with connect_redis(settings) as client:
        return [
            f"{job_id}: {problem}"
            for job_id in job_ids
            for problem in _of_job(store, client, ledger, collection, ledger.get(job_id), numbers)
        ]


def _of_job(
    store: ObjectStore, client: RedisClient, ledger: Ledger, collection: str, job: JobRecord, documents: list[str]
) -> Iterator[str]:
    if not job.state.closed:
        yield f"is {job.state}"
        return
    own = [key for key in documents if key.startswith(job.job_id)]
    if len(own) != job.commits:
        yield f"ended {job.commits} times and has the documents {own}"
    result = read_result(store, job.job_id, job.commits)
    if isinstance(result, FailureResult) != (job.state is not JobState.DONE):
        yield f"is {job.state}, its document says {result.status}"
    if isinstance(result, ActivationResult):
        yield from _of_activation(store, client, ledger, collection, job, result)


def _of_activation(
    store: ObjectStore, client: RedisClient, ledger: Ledger, collection: str, job: JobRecord, result: ActivationResult
) -> Iterator[str]:
    try:
        store.get_verified(Bucket.PROTECTED, result.protected_key, result.protected_sha256, _LARGEST)
    except AiiError as error:
        yield f"its file: {error.message}"
    changes = client.xrange(JournalKeys.of(collection).stream)
    last, change = next((e, f) for e, f in reversed(changes) if f["asset"] == result.asset_id)
    live = Journal(client, collection).live(result.asset_id)
    if live.state is None or live.state.entry != last:
        yield f"the journal's entry {last} is not its live one"
    current = _current_job(ledger, job)
    if change["op"] == "remove":
        if current.removed_at is None:
            yield "its asset was removed, and the ledger does not say so"
        return
    record = AssetRecords(store, collection).newest(result.asset_id)
    if record is None or live.state is None or not record.job_id == live.state.job_id == current.job_id:
        yield f"it or its successor {current.job_id} is not the journal's job {live.state} or the record's {record}"
    elif current.job_id == job.job_id:
        named = (record.protected_key, record.protected_sha256, record.journal_entry, change["code"])
        said = (result.protected_key, result.protected_sha256, result.journal_entry, result.code)
        if named != said or last != result.journal_entry:
            yield f"document {said}, record and journal {named}"


def _current_job(ledger: Ledger, job: JobRecord) -> JobRecord:
    """The job that superseded this one last; itself when none did."""
    seen = {job.job_id}
    while job.superseded_by and job.superseded_by not in seen:
        job = ledger.get(job.superseded_by)
        seen.add(job.job_id)
    return job
