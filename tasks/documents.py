"""Result documents in S3: where they lie, how large they may be, how they are read and written."""

from __future__ import annotations

from collections.abc import Iterator

from tasks.names import result_key
from tasks.results import Result, parse_result
from tasks.storage import Bucket, ObjectStore

__all__ = ["document_keys", "read_document", "read_document_at", "read_result", "write_result"]

_MAX_BYTES = 4 * 2**20


def read_result(store: ObjectStore, job_id: str) -> Result:
    """How a job ended.

    Raises:
        ObjectMissing: it has not ended, or its document was deleted.
        pydantic.ValidationError: what lies there is no result document.
    """
    return parse_result(read_document(store, job_id))


def read_document(store: ObjectStore, job_id: str) -> bytes:
    """The same as JSON; raises ObjectMissing."""
    return read_document_at(store, result_key(job_id))


def read_document_at(store: ObjectStore, key: str) -> bytes:
    """The same by its key."""
    return store.get(Bucket.RESULTS, key, _MAX_BYTES)


def write_result(store: ObjectStore, job_id: str, result: Result) -> None:
    """Write the document, in place of an earlier one of the same job."""
    store.put(Bucket.RESULTS, result_key(job_id), result.model_dump_json().encode(), "application/json")


def document_keys(store: ObjectStore) -> Iterator[str]:
    """The keys of all result documents."""
    return store.list_keys(Bucket.RESULTS)
