"""Jobs as the gateway shows them: ``GET /v1/jobs/{id}``, and the answers to submissions."""

from __future__ import annotations

import datetime
import json
import re
from typing import Annotated, Final

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Header, Path, Request, Response
from pydantic import BaseModel, Field

from producer.gateway.access import allowed
from producer.gateway.problems import Problem, answers, problem_of
from producer.gateway.state import State, state_of
from producer.gateway.tokens import Token
from producer.job import ActivationJob, Job
from tasks.documents import read_result
from tasks.errors import JobMissing, ObjectMissing, error_of
from tasks.ledger.records import JobRecord, record_of_result
from tasks.ledger.states import JobState
from tasks.ledger.waiting import closing
from tasks.messages import JobId
from tasks.results import FailureResult, Result

__all__ = ["JobDocument", "Prefer", "answer_of", "router", "wait_s_of"]

router = APIRouter(tags=["jobs"])

Prefer = Annotated[
    list[str] | None,
    Header(description="`wait=SECONDS` (RFC 7240): answer when the job has ended, or the time is over"),
]
_WAIT: Final = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})\"?(?:$|[,;\s])", re.IGNORECASE)


class JobDocument(BaseModel):
    """A job. `result` is its result document, once it has ended well; `error` says why it did not."""

    job_id: str
    task: str
    state: JobState
    new: bool | None = Field(default=None, description="of a submission: false when the same request was made before")
    asset_id: str | None = None
    submitted_at: datetime.datetime
    finished_at: datetime.datetime | None = None
    superseded_by: str | None = Field(default=None, description="the job that activated the asset after this one")
    removed_at: datetime.datetime | None = Field(default=None, description="when the asset was removed after this job")
    result: Result | None = None
    error: Problem | None = None


@router.get(
    "/v1/jobs/{job_id}",
    summary="The state of a job, and its result",
    response_model=JobDocument,
    responses=answers(404),
)
async def show_job(
    request: Request,
    job_id: Annotated[JobId, Path()],
    token: Annotated[Token, Depends(allowed("query"), use_cache=False)],
    prefer: Prefer = None,
) -> Response:
    state = state_of(request)
    wait_s = wait_s_of(prefer, state)
    if token.collections:  # before it waits, which would tell that there is such a job
        await run_sync(_check_collection, state, token, job_id)
    if wait_s:
        await closing(state.ledger, job_id, wait_s)
    record, result = await run_sync(_read, state, job_id)
    return _answer(_document(record, result), 200, wait_s)


async def answer_of(state: State, job: Job, wait_s: float) -> Response:
    """The answer to a submission: 200 with the result when it came in time, 202 when the job goes on."""
    if wait_s:
        await closing(state.ledger, job.job_id, wait_s)
    elif job.new:  # nothing to ask for
        return _answer(_accepted(job), 202, wait_s)
    record, result = await run_sync(_read, state, job.job_id)
    document = _document(record, result, job.new)
    return _answer(document, 200 if document.state.closed else 202, wait_s)


def _accepted(job: Job) -> JobDocument:
    """A job that has just been accepted."""
    return JobDocument(
        job_id=job.job_id,
        task=job.request.task,
        state=JobState.QUEUED,
        new=True,
        asset_id=job.request.asset_id if isinstance(job, ActivationJob) else None,
        submitted_at=datetime.datetime.now(datetime.UTC),
    )


def wait_s_of(prefer: list[str] | None, state: State) -> float:
    """For how long a request wants to wait, as far as it may."""
    found = _WAIT.search(", ".join(prefer or ()))
    return min(float(found[1]), state.settings.gateway_max_wait_s) if found else 0.0


def _answer(document: JobDocument, status: int, wait_s: float) -> Response:
    headers = {"Location": f"/v1/jobs/{document.job_id}"} | ({"Preference-Applied": "wait"} if wait_s else {})
    return Response(document.model_dump_json(), status, headers, "application/json")


def _read(state: State, job_id: str) -> tuple[JobRecord, Result | None]:
    try:
        record = state.ledger.get(job_id)
    except JobMissing:
        return _forgotten(state, job_id)
    if not record.state.closed:
        return record, None
    try:
        return record, read_result(state.store, job_id, max(1, record.commits))
    except ObjectMissing:  # purged since
        return record, None


def _forgotten(state: State, job_id: str) -> tuple[JobRecord, Result]:
    """A job that ended so long ago that only its document is left; raises JobMissing when there is none."""
    try:
        result = read_result(state.store, job_id)
    except ObjectMissing:
        raise _missing(job_id) from None
    return record_of_result(result), result


def _missing(job_id: str) -> JobMissing:
    """The same for a job that there is not and for one of another's collection: ids can be computed from requests."""
    return JobMissing(f"There is no job {job_id}.")


def _document(record: JobRecord, result: Result | None, new: bool | None = None) -> JobDocument:
    code, message = record.error_code, record.error_message or ""
    if isinstance(result, FailureResult):
        code, message = result.code, result.message
    failed = record.state in (JobState.FAILED, JobState.CANCELLED)
    return JobDocument(
        job_id=record.job_id,
        task=record.task,
        state=record.state,
        new=new,
        asset_id=record.asset_id,
        submitted_at=_time(record.submitted_at),
        finished_at=_time(record.finished_at) if record.finished_at else None,
        superseded_by=record.superseded_by,
        removed_at=_time(record.removed_at) if record.removed_at else None,
        result=None if failed else result,
        error=problem_of(error_of(code or "internal", message)) if failed else None,
    )


def _time(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def _check_collection(state: State, token: Token, job_id: str) -> None:
    """Raise JobMissing for a job of a collection that the token is not good for: its result names the collection, and
    until then its request does."""
    record, result = _read(state, job_id)
    named = getattr(result, "collection", None)
    stored = None if named else state.ledger.stored(record.job_id)
    said = json.loads(stored.payload) if stored else {}
    if not token.covers(named or (said.get("collection") if isinstance(said, dict) else None)):
        raise _missing(job_id)
