"""Handlers for jobs: the search, one job's page, its document, retrying and cancelling, dead letters, feedback."""

from __future__ import annotations

import asyncio
import datetime
import json
import re
import uuid
from contextlib import suppress
from typing import Any

import tornado.web
from pydantic import ValidationError

from deploy.flower.handlers import Handler
from deploy.flower.job_index import Wanted
from deploy.flower.job_search import Found, find_job, search_jobs
from deploy.flower.job_view import log_lines, retry_can_help, waterfall
from tasks.app import submit
from tasks.documents import read_document, read_result
from tasks.errors import AiiError, InvalidRequest, NotFound
from tasks.kinds import title_of
from tasks.ledger.dead_letters import DeadLetter
from tasks.ledger.records import JobRecord
from tasks.ledger.states import JobState
from tasks.messages import FeedbackRequest
from tasks.results import ActivationResult, QueryResult, Result
from tasks.state_folder import state_dir

__all__ = ["Cancel", "DeadLetterChange", "Document", "GiveFeedback", "JobPage", "Jobs", "JobsPage", "Retry"]

_FIELDS = ("q", "state", "worker", "collection", "since", "until")
_DEAD_SHOWN = 50
_CONTENT_SHOWN = 300


class JobsPage(Handler):
    """The search, and the dead letters: filled by the server, so that it needs no script."""

    @tornado.web.authenticated
    async def get(self) -> None:
        wanted, said = self._wanted()
        found = await asyncio.to_thread(self._search, wanted)
        letters = await asyncio.to_thread(self.served.dead_letters.newest, _DEAD_SHOWN)
        self.render(
            "jobs.html",
            said=said,
            found=found,
            choices=self._choices(said),
            letters=[_letter(letter) for letter in letters],
            read_only=self.read_only,
            clock=_clock,
            title_of=title_of,
            can_help=retry_can_help,
        )

    def _wanted(self) -> tuple[Wanted, dict[str, str]]:
        said = {name: self.get_query_argument(name, "").strip() for name in _FIELDS}
        state = said["state"] if said["state"] in list(JobState) else ""
        since, until = _seconds(said["since"]), _seconds(said["until"])
        return Wanted(said["q"], state, said["worker"], said["collection"], since, until), said

    def _search(self, wanted: Wanted) -> Found:
        served = self.served
        return search_jobs(served.job_index, served.operations, served.store, self._present()["collection"], wanted)

    def _choices(self, said: dict[str, str]) -> dict[str, list[str]]:
        """What may be chosen; a worker or a collection that is no longer there remains chosen."""
        choices = {"state": [state.value for state in JobState], **self._present()}
        return {name: values + [said[name]] * (said[name] not in ("", *values)) for name, values in choices.items()}

    def _present(self) -> dict[str, list[str]]:
        """Workers and collections, as far as figures are there."""
        with suppress(AiiError):
            view = self.served.snapshot.current()[0]
            names = {"worker": [note.worker for note in view.workers]}
            return names | {"collection": [held.name for held in view.collections]}
        return {"worker": [], "collection": []}


class Jobs(JobsPage):
    """The same search as JSON."""

    @tornado.web.authenticated
    async def get(self) -> None:
        found = await asyncio.to_thread(self._search, self._wanted()[0])
        jobs = [vars(record) | {"can_help": retry_can_help(record)} for record in found.jobs]
        self.answer(json.dumps({"jobs": jobs, "scanned": found.scanned}))


class JobPage(Handler):
    """One job: where its time went, its images, its document, what the logs say."""

    @tornado.web.authenticated
    async def get(self, job_id: str) -> None:
        record, result, document = await asyncio.to_thread(self._read, job_id)
        self.render(
            "job.html",
            record=record,
            result=result,
            document=document,
            bars=waterfall(result, record) if result else [],
            lines=await asyncio.to_thread(log_lines, state_dir() / "logs", job_id),
            is_activation=isinstance(result, ActivationResult),
            is_query=isinstance(result, QueryResult),
            can_help=retry_can_help(record),
            read_only=self.read_only,
            clock=_clock,
            title=title_of(record.task),
        )

    def _read(self, job_id: str) -> tuple[JobRecord, Result | None, str]:
        record = find_job(self.served.operations, self.served.store, job_id)
        if not record.state.closed:
            return record, None, ""
        try:
            result = read_result(self.served.store, job_id)
        except (NotFound, ValidationError):
            return record, None, ""
        return record, result, json.dumps(result.model_dump(mode="json"), indent=2, ensure_ascii=False)


class Document(Handler):
    """A job's result document."""

    @tornado.web.authenticated
    async def get(self, job_id: str) -> None:
        data = await asyncio.to_thread(read_document, self.served.store, job_id)
        self.set_header("Content-Type", "application/json")
        self.finish(data)


class Retry(Handler):
    """Opens a failed job again; Flower refuses a request that does not come from its own page."""

    @tornado.web.authenticated
    async def post(self, job_id: str) -> None:
        self.forbid_changes()
        await asyncio.to_thread(self._retry, job_id)
        self.answer(json.dumps({"job_id": job_id, "state": "queued"}))

    def _retry(self, job_id: str) -> None:
        self.served.sender.send_again(self.served.operations.retry(job_id))


class Cancel(Handler):
    """Cancels a job that has not ended."""

    @tornado.web.authenticated
    async def post(self, job_id: str) -> None:
        self.forbid_changes()
        await asyncio.to_thread(self.served.operations.cancel, job_id, self.served.store)
        self.answer(json.dumps({"job_id": job_id, "state": "cancelled"}))


class DeadLetterChange(Handler):
    """Sends a dead letter again, or drops it."""

    @tornado.web.authenticated
    async def post(self, what: str, entry: str) -> None:
        self.forbid_changes()
        letters = self.served.dead_letters
        if what == "resend":
            await asyncio.to_thread(letters.resend, entry)
        elif not await asyncio.to_thread(letters.drop, [entry]):
            raise NotFound(f"There is no dead letter {entry}.")
        self.answer(json.dumps({"entry": entry, "state": what}))


class GiveFeedback(Handler):
    """Says of a query's first match that it is one, or that it is not."""

    @tornado.web.authenticated
    async def post(self, opinion: str, job_id: str) -> None:
        self.forbid_changes()
        await asyncio.to_thread(self._submit, opinion, job_id)
        self.answer(json.dumps({"job_id": job_id, "state": "confirmed" if opinion == "confirm" else "rejected"}))

    def _submit(self, opinion: str, job_id: str) -> None:
        result = read_result(self.served.store, job_id)
        if not isinstance(result, QueryResult) or not result.matches:
            raise InvalidRequest(f"Job {job_id} is no query that found a match.")
        request = FeedbackRequest.model_validate(
            {
                "task": FeedbackRequest.task_name(), "collection": result.collection, "opinion": opinion,
                "source_sha256": result.source_sha256, "asset_id": result.matches[0].asset_id, "query_job": job_id,
                "nonce": uuid.uuid4().hex,
            }
        )  # fmt: skip
        submit(self.served.ledger, self.served.sender, request)


def _letter(letter: DeadLetter) -> dict[str, Any]:
    content = letter.content[:_CONTENT_SHOWN].decode(errors="replace")
    return {**vars(letter), "content": content, "sendable": letter.sendable, "clock": _clock(letter.at)}


def _clock(seconds: float | None) -> str:
    """A time in words, in UTC."""
    if seconds is None:
        return ""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")


def _seconds(text: str) -> float | None:
    """Seconds since the epoch of a time in UTC as a form gives it; None for none."""
    if not re.match(r"\d{4}-\d\d-\d\d", text):
        return None
    try:
        return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC).timestamp()
    except ValueError:
        return None
