"""Result documents in S3: their keys, their largest size, how they are read and written."""

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
        pydantic.ValidationError: the object is no result document.
    """
    return parse_result(read_document(store, job_id))


def read_document(store: ObjectStore, job_id: str) -> bytes:
    """A result document as JSON; raises ObjectMissing."""
    return read_document_at(store, result_key(job_id))


def read_document_at(store: ObjectStore, key: str) -> bytes:
    """A result document as JSON, by its key; raises ObjectMissing."""
    return store.get(Bucket.RESULTS, key, _MAX_BYTES)


def write_result(store: ObjectStore, job_id: str, result: Result) -> None:
    """Write the document, in place of an earlier one of the same job."""
    store.put(Bucket.RESULTS, result_key(job_id), result.model_dump_json().encode(), "application/json")


def document_keys(store: ObjectStore) -> Iterator[str]:
    """The keys of all result documents."""
    return store.list_keys(Bucket.RESULTS)
