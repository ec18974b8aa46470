"""One idempotency key, one request: another request under a key that was used is refused, in whatever state its job is.

The ledger keeps the digest of what the first request said; when it has forgotten the job, the job's document tells as
much of it as it names.
"""

from __future__ import annotations

from typing import Any, Final

from pydantic import ValidationError

from producer.requests import request_of
from tasks.documents import read_result
from tasks.errors import Conflict, ObjectMissing, StorageRefused
from tasks.ledger.ledger import Ledger
from tasks.messages import Request
from tasks.results import FailureResult, Result
from tasks.storage import ObjectStore

__all__ = ["refuse_another", "refuse_another_than_documented"]

# What a request says and its document repeats; a document of another kind lacks some.
_REPEATED: Final = ("collection", "meta", "copies", "opinion", "query_job")


def refuse_another(request: Request, job_id: str, ledger: Ledger) -> None:
    """Raise Conflict where the ledger knows the key's job, and that another request made it. What version 0.1.0 wrote
    tells as long as the job is open or has failed."""
    said = ledger.said(job_id)
    if said:
        other = said != request.digest
    else:
        earlier = request_of(type(request), ledger.stored(job_id))
        other = earlier is not None and earlier.said() != request.said()
    if other:
        raise _conflict(request, job_id)


def refuse_another_than_documented(request: Request, job_id: str, store: ObjectStore) -> None:
    """Raise Conflict where the key's job, which the ledger has forgotten, has a document of another request."""
    try:
        result = read_result(store, job_id, 1)  # of what the key named first; a listing may not be allowed
    except (ObjectMissing, StorageRefused, ValidationError):
        return
    if not _is_of(result, request):
        raise _conflict(request, job_id)


def _is_of(result: Result, request: Request) -> bool:
    """Whether a document may be of a request, by what both name."""
    if isinstance(result, FailureResult):
        return True
    said, done = request.model_dump(mode="json"), result.model_dump(mode="json")
    if any(said[name] != done[name] for name in _REPEATED if name in said and name in done):
        return False
    source = said.get("source_sha256") or (said.get("source") or {}).get("sha256")
    if source and done.get("source_sha256", source) != source:
        return False
    if "asset_id" in said and "asset_id" in done and done["asset_id"] != (said["asset_id"] or done["source_sha256"]):
        return False
    return _same_options(said.get("options", {}), done.get("options", {}))


def _same_options(said: dict[str, Any], done: dict[str, Any]) -> bool:
    """Whether options are those of a document, which names the collection's own where the request leaves them open."""
    return all(value is None or done.get(name, value) == value for name, value in said.items())


def _conflict(request: Request, job_id: str) -> Conflict:
    return Conflict(f"The idempotency key {request.idempotency_key!r} named another request: {job_id}.")
