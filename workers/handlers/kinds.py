"""Which handler does which kind of job: the workers' end of a task."""

from __future__ import annotations

from typing import Any

from tasks.messages import (
    ActivateRequest,
    CardRequest,
    CompactRequest,
    ExplainRequest,
    ExtractRequest,
    FeedbackRequest,
    LookupRequest,
    QueryRequest,
)
from tasks.settings import Settings
from workers.delivery.job import Kind
from workers.handlers.cards import CardHandler
from workers.handlers.image_jobs import ImageHandlers
from workers.handlers.index_jobs import IndexHandlers
from workers.handlers.lookups import LookupHandler
from workers.handlers.queries import QueryHandlers
from workers.handlers.resources import Resources

__all__ = ["kinds_of_jobs"]


def kinds_of_jobs(resources: Resources, settings: Settings) -> list[Kind[Any]]:
    """All kinds of jobs, with what is done for each."""
    image, queries, index = ImageHandlers(resources), QueryHandlers(resources), IndexHandlers(resources)
    image_s, index_s = settings.job_timeout_s, settings.index_job_timeout_s
    return [
        Kind(ActivateRequest, image.activate, image.restore_activation, image.record_activation, timeout_s=image_s),
        Kind(QueryRequest, queries.query, unique=True, timeout_s=image_s),
        Kind(LookupRequest, LookupHandler(resources).look_up, unique=True, timeout_s=image_s),
        Kind(ExplainRequest, queries.explain, unique=True, timeout_s=image_s),
        Kind(CardRequest, CardHandler(resources).card, unique=True, timeout_s=image_s),
        Kind(FeedbackRequest, queries.feedback, unique=True, timeout_s=image_s),
        Kind(CompactRequest, index.compact, timeout_s=index_s),
        Kind(ExtractRequest, index.extract, timeout_s=index_s),
    ]
