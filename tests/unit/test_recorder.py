"""What a worker counts of the jobs it closed."""

from __future__ import annotations

import pytest

from tasks.errors import RedisUnavailable
from tasks.messages import ActivationOptions
from tasks.monitoring.metrics import Counters, Metrics
from tasks.monitoring.paper import OPTIMISER
from tasks.names import TASK_ACTIVATE
from tasks.results import ActivationResult, FailureResult, Provenance, Quality, Verification
from workers.monitoring.recorder import Recorder

TIMES = {"fetch": 5.0, "device": 100.0, "optimise": 30.0, "total": 120.0}


class Silent(Metrics):
    """Takes what is published, or fails as it is told to."""

    def __init__(self) -> None:
        self.problem: Exception | None = None
        self.taken = Counters()

    def publish(self, counted: Counters, *_: object) -> None:
        if self.problem:
            raise self.problem
        self.taken.add(counted)


@pytest.fixture
def metrics() -> Silent:
    return Silent()


@pytest.fixture
def recorder(metrics: Silent) -> Recorder:
    return Recorder(metrics)


def provenance() -> Provenance:
    return Provenance(worker="w", device="cpu", versions={}, timings_ms=TIMES, finished_at="")


def activation(taken: int, attempts: int = 1, psnr_db: float | None = 40.04, **options: object) -> ActivationResult:
    """As far as figures are made of it."""
    return ActivationResult.model_construct(
        status="activated", task=TASK_ACTIVATE, job_id="0" * 32, collection="starter", provenance=provenance(),
        options=ActivationOptions(**options),  # type: ignore[arg-type]
        quality=Quality(psnr_db=psnr_db, ssim=1, linf=1),
        verification=Verification(
            verified=True, on_code=True, attempts=attempts, steps=taken, distance_before=1, distance_after=0,
            loss_before=1, loss_after=0,
        ),
    )  # fmt: skip


FAILURE = FailureResult(task=TASK_ACTIVATE, job_id="0" * 32, code="truncated", message="", provenance=provenance())


@pytest.mark.parametrize(
    ("result", "mode"),
    [
        (activation(2), "10_steps"),
        (activation(1, steps=1), "1_step"),
        (activation(5, steps=5), "other"),
        (activation(10, robust=True), "robust"),
    ],
)
def test_the_optimiser_is_counted_by_what_it_was_asked(recorder: Recorder, result: ActivationResult, mode: str) -> None:
    recorder.observe(result)
    total = recorder.total
    assert [key for key in total.stages if key[0] == OPTIMISER] == [(OPTIMISER, mode)]
    assert total.stage(OPTIMISER, mode).mean_ms == 30.0
    assert total.steps == {mode: result.verification.steps}


def test_what_an_image_waited_for_the_device_is_told_apart(recorder: Recorder) -> None:
    recorder.observe(activation(2))
    assert recorder.total.stage(TASK_ACTIVATE, "wait").mean_ms == 70.0
    assert recorder.total.stage(TASK_ACTIVATE, "device").count == 0


def test_a_step_takes_its_share_of_all_tries_and_is_not_counted_over_edited_views(recorder: Recorder) -> None:
    recorder.observe(activation(4, robust=True))
    assert recorder.total.stage(TASK_ACTIVATE, "step").count == 0
    recorder.observe(activation(2))
    recorder.observe(activation(6, attempts=2))
    assert recorder.total.stage(TASK_ACTIVATE, "step").count == 2
    assert recorder.total.stage(TASK_ACTIVATE, "step").mean_ms == (15.0 + 5.0) / 2


def test_psnr_is_counted_in_tenths_and_an_unchanged_image_has_none(recorder: Recorder) -> None:
    for psnr_db in (40.04, 36.46, None, 250.0):
        recorder.observe(activation(2, psnr_db=psnr_db))
    assert dict(recorder.total.psnr) == {400: 1, 365: 1, 1000: 1}


@pytest.mark.parametrize("problem", [RedisUnavailable("away"), ValueError("whatever")])
def test_what_could_not_be_published_is_published_once_later(
    recorder: Recorder, metrics: Silent, problem: Exception
) -> None:
    recorder.observe(FAILURE)
    metrics.problem = problem
    for _ in range(5):
        recorder.publish()
    assert recorder.total.failures == {"truncated": 1}
    metrics.problem = None
    recorder.observe(FAILURE)
    recorder.publish()
    recorder.publish()
    assert metrics.taken.failures == recorder.total.failures == {"truncated": 2}
