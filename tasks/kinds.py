"""The kinds of jobs, in one table: each with its message, its results, and what is shown of it.

A new kind of job has its message in :mod:`tasks.messages`, its result in :mod:`tasks.results`, one row here, and a
handler in :mod:`workers.handlers.kinds`. Routing, metrics, the overview and `aii status` read this table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, get_args

from tasks.messages import (
    ActivateRequest,
    CardRequest,
    CompactRequest,
    ExplainRequest,
    ExtractRequest,
    FeedbackRequest,
    LookupRequest,
    QueryRequest,
    Request,
)
from tasks.results import (
    ActivationResult,
    CardResult,
    CompactionResult,
    ExplanationResult,
    ExtractionResult,
    FeedbackResult,
    LookupResult,
    QueryResult,
    Result,
)
from tasks.stages import Stage

__all__ = ["KINDS", "QUEUE_OF_TASK", "REQUEST_OF_TASK", "TaskKind", "title_of"]


@dataclass(frozen=True)
class TaskKind:
    """One kind of job.

    Attributes:
        title: what people are shown instead of the task's name.
        request: the message.
        result: the document of a job that ended well.
        stages: those whose durations are shown, in the order in which an image passes them.
        metric: Prometheus' histogram of those durations, as name and help text.
    """

    title: str
    request: type[Request]
    result: type[Result]
    stages: tuple[Stage, ...] = ()
    metric: tuple[str, str] | None = None

    @property
    def task(self) -> str:
        """Celery's name of the task."""
        return self.request.task_name()

    @property
    def queue(self) -> str:
        return self.request.queue

    @property
    def statuses(self) -> tuple[str, ...]:
        """Every way in which such a job can end."""
        return (*get_args(self.result.model_fields["status"].annotation), "failed")


# `total` is the sum of the others, of which `step` is a part of `optimise`.
_ACTIVATION_STAGES: Final[tuple[Stage, ...]] = (
    "total", "fetch", "decode", "prepare", "wait", "optimise", "step", "compose", "encode", "verify", "quality",
    "upload", "journal",
)  # fmt: skip

KINDS: Final = (
    TaskKind(
        "activate", ActivateRequest, ActivationResult, _ACTIVATION_STAGES,
        ("aii_activation_seconds", "Time an activation spent in a stage."),
    ),
    TaskKind(
        "query", QueryRequest, QueryResult, ("total", "fetch", "decode", "extract", "search"),
        ("aii_query_seconds", "Time a query spent in a stage."),
    ),
    TaskKind("lookup", LookupRequest, LookupResult, ("total", "fetch", "search")),
    TaskKind("explain", ExplainRequest, ExplanationResult),
    TaskKind("card", CardRequest, CardResult),
    TaskKind("feedback", FeedbackRequest, FeedbackResult),
    TaskKind("compact", CompactRequest, CompactionResult),
    TaskKind("extract", ExtractRequest, ExtractionResult),
)  # fmt: skip

QUEUE_OF_TASK: Final = {kind.task: kind.queue for kind in KINDS}
REQUEST_OF_TASK: Final = {kind.task: kind.request for kind in KINDS}
_TITLES: Final = {kind.task: kind.title for kind in KINDS}


def title_of(task: str) -> str:
    """What people are shown instead of a task's name; the name itself for a task of another version."""
    return _TITLES.get(task, task)
