"""Our figures beside the talk's: like with like, or the reason why not."""

from __future__ import annotations

import pytest

from tasks.monitoring.comparison import comparisons, missed_targets
from tasks.monitoring.metrics import Counters
from tasks.monitoring.overview import Comparison
from tasks.monitoring.paper import OPTIMISER, SEARCH, TEN_STEPS, USUAL_PROBES
from tasks.monitoring.presence import CollectionState, WorkerNote
from tasks.names import TASK_QUERY
from tasks.settings import Settings


def worker(device: str = "cuda (H100)", extractor: str = "sscd") -> WorkerNote:
    return WorkerNote(
        worker="w", pid=1, device=device, extractor=extractor, queues=["activate"], batch_images=4, memory_bytes=1,
        device_memory_bytes=None, collections=[],
    )  # fmt: skip


def collection(vectors: int = 1_000_000, factory: str = "IVF4096,PQ8x8", name: str = "c") -> CollectionState:
    return CollectionState(name=name, generation=1, factory=factory, vectors=vectors, journal=0)


def compared(
    counted: Counters, workers: list[WorkerNote], *held: CollectionState, **targets: float
) -> dict[str, Comparison]:
    found = comparisons(counted, workers, held, Settings(**targets))  # type: ignore[arg-type]
    return {figure.name: figure for figure in found}


@pytest.mark.parametrize(
    ("device", "extractor", "reason"),
    [
        ("cuda (H100)", "s3://weights/sscd.pt", ""),
        ("cpu (2 threads)", "s3://weights/sscd.pt", "GPU"),
        ("cuda (H100)", "compact", "SSCD"),
    ],
)
def test_activations_are_compared_on_a_gpu_with_the_same_network_only(device: str, extractor: str, reason: str) -> None:
    figures = compared(Counters(), [worker(device, extractor)], collection())
    for name in ("10_steps", "1_step"):
        assert bool(figures[name].incomparable) == bool(reason)
        assert reason in figures[name].incomparable


@pytest.mark.parametrize(
    ("vectors", "factory", "reason"),
    [
        (500_000, "IVF512,PQ8x8", ""),
        (2_000_000, "IVF4096,PQ8x8", ""),
        (40_000, "IVF512,PQ8x8", "among 1,000,000 vectors"),
        (2_000_001, "IVF4096,PQ8x8", "among 1,000,000 vectors"),
        (1_000_000, "PCA64,LSH", "IVF-PQ"),
    ],
)
def test_searches_are_compared_among_about_as_many_vectors_in_the_same_family_only(
    vectors: int, factory: str, reason: str
) -> None:
    said = compared(Counters(), [worker()], collection(vectors, factory))["search"].incomparable
    assert bool(said) == bool(reason)
    assert reason in said


def test_a_small_collection_that_is_not_asked_does_not_spoil_the_comparison_of_a_large_one() -> None:
    counted = Counters()
    counted.parts["collection", "large", TASK_QUERY] = 3
    large, small = collection(name="large"), collection(40, name="small")
    assert compared(counted, [worker()], large, small)["search"].incomparable == ""
    counted.parts["collection", "small", TASK_QUERY] = 1
    assert "small has 40" in compared(counted, [worker()], large, small)["search"].incomparable


def test_without_a_worker_nothing_is_comparable() -> None:
    assert all(figure.incomparable for figure in compared(Counters(), []).values())


def test_the_talks_figures_are_times_and_rates() -> None:
    rates = {name: figure.paper_per_s for name, figure in compared(Counters(), []).items()}
    assert rates == {
        name: pytest.approx(per_s, rel=2e-3)
        for name, per_s in {"10_steps": 25.1, "1_step": 233, "search": 2_381}.items()
    }


def test_a_target_that_half_of_the_images_miss_is_a_problem_and_one_that_they_keep_is_not() -> None:
    counted = Counters()
    for ms in (10, 20, 30):
        counted.observe(OPTIMISER, TEN_STEPS, ms)
        counted.observe(SEARCH, USUAL_PROBES, ms / 100)
    figures = compared(counted, [worker()], collection(), target_ten_steps_ms=15, target_search_ms=0.5)
    (missed,) = missed_targets(list(figures.values()))
    assert "Activation, 10 steps" in missed
    assert "15 ms" in missed
