"""Our figures beside the paper's and the operator's targets: like with like, or the reason why it is not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from tasks.monitoring.metrics import Counters
from tasks.monitoring.overview import Comparison
from tasks.monitoring.paper import OPTIMISER, PAPER, PaperFigure
from tasks.monitoring.presence import CollectionState, WorkerNote
from tasks.names import QUEUE_ACTIVATE, TASK_QUERY
from tasks.settings import Settings

__all__ = ["comparisons", "missed_targets"]

_PAPER_VECTORS: Final = 1_000_000
_FACTOR: Final = 2  # a search takes twice as long among twice as many vectors, at one number of cells


def comparisons(
    counted: Counters, workers: Sequence[WorkerNote], collections: Sequence[CollectionState], settings: Settings
) -> list[Comparison]:
    """One for each figure of the paper."""
    targets = {
        "10_steps": settings.target_ten_steps_ms,
        "1_step": settings.target_one_step_ms,
        "search": settings.target_search_ms,
    }
    asked = {name for kind, name, what in counted.parts if (kind, what) == ("collection", TASK_QUERY)}
    searched = [held for held in collections if not asked or held.name in asked]
    reasons = {OPTIMISER: next(_other_devices(workers), "")}
    return [
        _comparison(figure, counted, targets[figure.name], reasons.get(figure.task, next(_other_indexes(searched), "")))
        for figure in PAPER
    ]


def missed_targets(compared: Sequence[Comparison]) -> list[str]:
    """In words, the targets that more than half of the images missed."""
    return [
        f"{figure.title}: {figure.p50_ms:.3g} ms, the target is {figure.target_ms:g} ms"
        for figure in compared
        if figure.target_ms and figure.p50_ms and figure.p50_ms > figure.target_ms
    ]


def _comparison(figure: PaperFigure, counted: Counters, target_ms: float, incomparable: str) -> Comparison:
    seen = counted.stage(figure.task, figure.stage)
    steps = counted.steps[figure.stage]
    return Comparison(
        name=figure.name, title=figure.title, paper_ms=figure.ms, paper_setting=figure.setting, count=seen.count,
        p50_ms=seen.quantile_ms(0.5), p95_ms=seen.quantile_ms(0.95), steps=steps / seen.count if steps else None,
        target_ms=target_ms or None, incomparable=incomparable,
    )  # fmt: skip


def _other_devices(workers: Sequence[WorkerNote]) -> Iterator[str]:
    """Why activations here are not the paper's: on another kind of device, or through another network."""
    activating = [worker for worker in workers if QUEUE_ACTIVATE in worker.queues]
    if not activating:
        yield "no worker is there to tell on what it was measured"
    for worker in activating:
        if not worker.device.startswith("cuda"):
            yield f"the talk’s is of a GPU, {worker.worker} computes on {worker.device}"
        if "sscd" not in worker.extractor.lower():
            yield f"the talk’s is of SSCD, {worker.worker} runs {worker.extractor}"


def _other_indexes(collections: Sequence[CollectionState]) -> Iterator[str]:
    """Why searches here are not the paper's: among fewer or more vectors, or in an index of another family."""
    if not collections:
        yield "no worker is there to tell among how many vectors"
    for held in collections:
        vectors = held.vectors + held.journal
        if not _PAPER_VECTORS / _FACTOR <= vectors <= _PAPER_VECTORS * _FACTOR:
            yield f"the talk’s is among {_PAPER_VECTORS:,} vectors, {held.name} has {vectors:,}"
        if not (held.factory.startswith("IVF") and "PQ" in held.factory):
            yield f"the talk’s is in an IVF-PQ, {held.name} is {held.factory}"
