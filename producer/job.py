"""Handles of accepted jobs: what was asked for, how far it is, and its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from tasks.errors import DeadlineExceeded, JobMissing, error_of
from tasks.ledger.states import JobState
from tasks.messages import (
    ActivateRequest,
    CardRequest,
    ExplainRequest,
    FeedbackRequest,
    LookupRequest,
    QueryRequest,
    Request,
)
from tasks.results import (
    ActivationResult,
    CardResult,
    ExplanationResult,
    FailureResult,
    FeedbackResult,
    GoodResult,
    LookupResult,
    QueryResult,
)

if TYPE_CHECKING:
    from producer.core import ProducerCore

__all__ = [
    "JOBS",
    "ActivationJob",
    "CardJob",
    "ExplanationJob",
    "FeedbackJob",
    "Job",
    "JobKind",
    "LookupJob",
    "QueryJob",
]


@dataclass(frozen=True)
class Job:
    """One accepted request.

    Attributes:
        new: False when the same request had been accepted before, and this is that job.
    """

    job_id: str
    new: bool
    _request: Request | None = field(compare=False, repr=False)
    _producer: ProducerCore = field(compare=False, repr=False)

    @property
    def request(self) -> Request:
        """What was asked for. Raises JobMissing when the ledger had forgotten that."""
        if self._request is None:
            raise JobMissing(f"The ledger does not know any more what job {self.job_id} asked for.")
        return self._request

    def state(self) -> JobState:
        """Raises JobMissing when the ledger has forgotten the job."""
        return self._producer.ledger.get(self.job_id).state

    def wait(self, timeout_s: float | None = None) -> GoodResult:
        """Wait for the end of the job and give back its result document.

        Raises:
            DeadlineExceeded: the job was still open after `timeout_s` seconds; it goes on.
            JobMissing: the ledger forgot it before it ended (its Redis was emptied).
            AiiError: the job failed; the class, and `code`, say why.
        """
        for _, result in self._producer.wait_for([self.job_id], timeout_s):
            if isinstance(result, FailureResult):
                raise error_of(result.code, result.message)
            return result
        raise DeadlineExceeded(f"Job {self.job_id} is not done after {timeout_s} s; it goes on: wait again later.")

    def cancel(self) -> JobState:
        """Cancel the job, see :meth:`ProducerCore.cancel`."""
        return self._producer.cancel(self.job_id)


@dataclass(frozen=True)
class ActivationJob(Job):
    """An accepted activation; `request.asset_id` names the asset."""

    @property
    def request(self) -> ActivateRequest:
        return cast(ActivateRequest, super().request)

    def wait(self, timeout_s: float | None = None) -> ActivationResult:
        return cast(ActivationResult, super().wait(timeout_s))


@dataclass(frozen=True)
class QueryJob(Job):
    """An accepted query."""

    @property
    def request(self) -> QueryRequest:
        return cast(QueryRequest, super().request)

    def wait(self, timeout_s: float | None = None) -> QueryResult:
        return cast(QueryResult, super().wait(timeout_s))


@dataclass(frozen=True)
class LookupJob(Job):
    """An accepted look-up of feature vectors."""

    @property
    def request(self) -> LookupRequest:
        return cast(LookupRequest, super().request)

    def wait(self, timeout_s: float | None = None) -> LookupResult:
        return cast(LookupResult, super().wait(timeout_s))


@dataclass(frozen=True)
class ExplanationJob(Job):
    """An accepted question why a query finds an asset, or does not."""

    @property
    def request(self) -> ExplainRequest:
        return cast(ExplainRequest, super().request)

    def wait(self, timeout_s: float | None = None) -> ExplanationResult:
        return cast(ExplanationResult, super().wait(timeout_s))


@dataclass(frozen=True)
class CardJob(Job):
    """An accepted measurement of an asset."""

    @property
    def request(self) -> CardRequest:
        return cast(CardRequest, super().request)

    def wait(self, timeout_s: float | None = None) -> CardResult:
        return cast(CardResult, super().wait(timeout_s))


@dataclass(frozen=True)
class FeedbackJob(Job):
    """An accepted opinion on a match."""

    @property
    def request(self) -> FeedbackRequest:
        return cast(FeedbackRequest, super().request)

    def wait(self, timeout_s: float | None = None) -> FeedbackResult:
        return cast(FeedbackResult, super().wait(timeout_s))


class JobKind(NamedTuple):
    """A kind of job that producers submit."""

    job: type[Job]
    request: type[Request]


JOBS: Final[Mapping[str, JobKind]] = {
    kind.request.task_name(): kind
    for kind in (
        JobKind(ActivationJob, ActivateRequest),
        JobKind(QueryJob, QueryRequest),
        JobKind(LookupJob, LookupRequest),
        JobKind(ExplanationJob, ExplainRequest),
        JobKind(CardJob, CardRequest),
        JobKind(FeedbackJob, FeedbackRequest),
    )
}
