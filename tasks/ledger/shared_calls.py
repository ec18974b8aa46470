"""What workers ask of the ledger for each job, where calls of several threads become one script: it costs Redis less
than one for each (:mod:`tasks.ledger.shared_scripts`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from tasks.connection import RedisClient
from tasks.ledger import commit_scripts, shared_scripts
from tasks.ledger.commits import Registration, Seen, registration_args, seen_args
from tasks.ledger.gathering import Gathering
from tasks.ledger.keys import CLOSED_BOUND, COUNTS, EVENTS, LEASES, JournalKeys, closed_key, job_key
from tasks.ledger.states import JobState

__all__ = ["ClaimCall", "CloseCall", "CommitCall", "PublishCall", "SharedCalls"]


@dataclass(frozen=True)
class ClaimCall:
    job_id: str
    token: str
    queue: str
    worker: str


@dataclass(frozen=True)
class PublishCall:
    job_id: str
    token: str


@dataclass(frozen=True)
class CommitCall:
    """See :meth:`tasks.ledger.ledger.Ledger.commit`."""

    job_id: str
    token: str
    document: tuple[str, str]
    registration: Registration | None
    seen: Seen | None
    found: int

    @property
    def collection(self) -> str:
        return self.registration.collection if self.registration else ""

    @property
    def subjects(self) -> set[tuple[str, str]]:
        """What no other commit of the same script may be about."""
        asset = {("asset", self.registration.asset_id)} if self.registration else set()
        return {("job", self.job_id)} | asset

    def args(self) -> list[Any]:
        said = [self.job_id, self.token, self.found, *self.document]
        return [*said, *registration_args(self.registration), *seen_args(self.seen)]


@dataclass(frozen=True)
class CloseCall:
    """`error`: code and message; `recorded`: collection, asset and entry, or "" three times."""

    job_id: str
    token: str
    state: JobState
    error: tuple[str, str]
    keep_s: int
    recorded: tuple[str, str, str]


class SharedCalls:
    """Thread-safe. Each call says how long it may wait for others, in seconds.

    Args:
        deaths_alone: how many workers die of a job that runs alone before it is to blame.
    """

    def __init__(self, client: RedisClient, lease_ms: int, deaths_alone: int) -> None:
        self._terms = (lease_ms, deaths_alone)
        self._claim = client.register_script(shared_scripts.CLAIM)
        self._publish = client.register_script(shared_scripts.PUBLISH)
        self._commit = client.register_script(commit_scripts.COMMIT)
        self._close = client.register_script(shared_scripts.CLOSE)
        self.claim: Gathering[ClaimCall, str] = Gathering(self._claim_all)
        self.publish: Gathering[PublishCall, bool] = Gathering(self._publish_all)
        self.commit: Gathering[CommitCall, list[str]] = Gathering(self._commit_all)
        self.close: Gathering[CloseCall, bool] = Gathering(self._close_all)

    def _claim_all(self, calls: Sequence[ClaimCall]) -> Sequence[str]:
        args = chain.from_iterable((call.job_id, call.token, call.queue, call.worker) for call in calls)
        keys = [*(job_key(call.job_id) for call in calls), LEASES]
        return [str(answer) for answer in self._claim(keys=keys, args=[*self._terms, *args])]

    def _publish_all(self, calls: Sequence[PublishCall]) -> Sequence[bool]:
        answers = self._publish(keys=[job_key(call.job_id) for call in calls], args=[call.token for call in calls])
        return [bool(answer) for answer in answers]

    def _commit_all(self, calls: Sequence[CommitCall]) -> Sequence[list[str]]:
        answers: dict[CommitCall, list[str]] = {}
        for some in _scripts_of(calls):
            keys = [*JournalKeys.of(some[0].collection).all, *(job_key(call.job_id) for call in some)]
            said = self._commit(keys=keys, args=list(chain.from_iterable(call.args() for call in some)))
            answers |= dict(zip(some, said, strict=True))
        return [answers[call] for call in calls]

    def _close_all(self, calls: Sequence[CloseCall]) -> Sequence[bool]:
        keys, args = [EVENTS, LEASES, COUNTS], list[Any]([CLOSED_BOUND])
        for call in calls:
            collection, *change = call.recorded
            keys += [job_key(call.job_id), closed_key(call.state), JournalKeys.of(collection).unrecorded]
            args += [call.job_id, call.token, call.state, *call.error, call.keep_s, *change]
        return [bool(answer) for answer in self._close(keys=keys, args=args)]


def _scripts_of(calls: Sequence[CommitCall]) -> list[list[CommitCall]]:
    """The commits of each script: of one collection, and each of another job and another asset."""
    found: list[tuple[list[CommitCall], set[tuple[str, str]]]] = []
    for call in calls:
        for some, subjects in found:
            if some[0].collection == call.collection and not subjects & call.subjects:
                some.append(call)
                subjects.update(call.subjects)
                break
        else:
            found.append(([call], set(call.subjects)))
    return [some for some, _ in found]
