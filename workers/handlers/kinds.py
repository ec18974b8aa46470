"""Which handler does which kind of job: the workers' end of a task."""

from __future__ import annotations

from typing import Any

from tasks.messages import ActivateRequest, CompactRequest, ExtractRequest, QueryRequest
from workers.delivery.job import Kind
from workers.handlers.image_jobs import ImageHandlers
from workers.handlers.index_jobs import IndexHandlers
from workers.handlers.resources import Resources

__all__ = ["kinds_of_jobs"]


def kinds_of_jobs(resources: Resources) -> list[Kind[Any]]:
    """All kinds of jobs, with what is done for each."""
    image, index = ImageHandlers(resources), IndexHandlers(resources)
    return [
        Kind(ActivateRequest, image.activate, image.restore_activation),
        Kind(QueryRequest, image.query),
        Kind(CompactRequest, index.compact),
        Kind(ExtractRequest, index.extract),
    ]
