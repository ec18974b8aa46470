"""Result documents in S3: their keys, their largest size, how they are read and written."""

from __future__ import annotations

from collections.abc import Iterator

from tasks.names import result_key
from tasks.results import Result, parse_result
from tasks.storage import Bucket, ObjectStore

__all__ = [
    "delete_document",
    "document_keys",
    "last_commit",
    "put_document",
    "read_document",
    "read_document_at",
    "read_result",
    "write_result",
]

_MAX_BYTES = 4 * 2**20


def read_result(store: ObjectStore, job_id: str, commit: int | None = None) -> Result:
    """How a job ended.

    Args:
        commit: which time it ended, as the ledger knows it; default: the last one that S3 knows.

    Raises:
        ObjectMissing: it has not ended, or its document was deleted.
        pydantic.ValidationError: the object is no result document.
    """
    return parse_result(read_document(store, job_id, commit))


def read_document(store: ObjectStore, job_id: str, commit: int | None = None) -> bytes:
    """A result document as JSON; arguments and errors as in :func:`read_result`."""
    number = commit or max(_later_commits(store, job_id), default=1)
    return read_document_at(store, result_key(job_id, number))


def read_document_at(store: ObjectStore, key: str) -> bytes:
    """A result document as JSON, by its key; raises ObjectMissing."""
    return store.get(Bucket.RESULTS, key, _MAX_BYTES)


def last_commit(store: ObjectStore, job_id: str) -> int:
    """The highest number of a document of a job in S3; 0 when it has none.

    The first document of a job is deleted after all others, so that one request is enough for a job without any.
    """
    if not store.exists(Bucket.RESULTS, result_key(job_id)):
        return 0
    return max(_later_commits(store, job_id), default=1)


def write_result(store: ObjectStore, job_id: str, result: Result, commit: int = 1) -> None:
    """Write the document of one end of a job."""
    put_document(store, job_id, result.model_dump_json().encode(), commit)


def put_document(store: ObjectStore, job_id: str, document: bytes, commit: int) -> None:
    """The same for a document that is written word for word."""
    store.put(Bucket.RESULTS, result_key(job_id, commit), document, "application/json")


def delete_document(store: ObjectStore, job_id: str, commit: int) -> None:
    """Delete one document of a job; the first one stays as long as there are others, see :func:`last_commit`."""
    if commit > 1 or not any(_later_commits(store, job_id)):
        store.delete(Bucket.RESULTS, result_key(job_id, commit))


def document_keys(store: ObjectStore) -> Iterator[str]:
    """The keys of all result documents."""
    return store.list_keys(Bucket.RESULTS)


def _later_commits(store: ObjectStore, job_id: str) -> Iterator[int]:
    """The numbers of a job's documents after the first."""
    for key in store.list_keys(Bucket.RESULTS, f"{job_id}/"):
        name = key.rpartition("/")[2].removesuffix(".json")
        if name.isdigit():
            yield int(name)
