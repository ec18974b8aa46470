"""What the optimiser lowers, for every family of index, and the loop itself."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tasks.messages import ActivationOptions
from tests.photographs import pixels
from workers.activation.compose import prepare
from workers.activation.engine import Work
from workers.activation.objective import Objective
from workers.activation.optimiser import Optimised, Pace, Runner, optimise
from workers.activation.step import Batch, Forward, Schedule, changed, forward
from workers.activation.views import in_turn, mean_views
from workers.extractors.base import Extractor
from workers.extractors.registry import load_extractor
from workers.index.codec.codec import Codec, Features, search
from workers.index.codec.target import Target

CPU = torch.device("cpu")
FAMILIES = ("IVF16,PQ4x4", "PQ4x4", "OPQ4_8,PQ4x4", "OPQ4_8,IVF16,PQ4x4", "IVF16,Flat", "PCA16,LSH", "LSHrt")
NAMES = ("astronaut.png", "chelsea.png", "coffee.png")


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return load_extractor("compact", CPU)


@pytest.fixture(scope="module")
def features() -> Features:
    values = np.random.default_rng(0).standard_normal((3000, 256)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def batch() -> Batch:
    prepared = [prepare(pixels(name), 112, 3.0) for name in NAMES]
    return Batch(
        images=torch.stack([p.image for p in prepared]),
        masks=torch.stack([torch.tensor(p.weights)[:, None, None] * p.mask for p in prepared]),
        rows=torch.stack([p.rows for p in prepared]),
        columns=torch.stack([p.columns for p in prepared]),
        aspects=torch.tensor([p.aspect for p in prepared]),
        grey=torch.tensor([p.grey for p in prepared]),
    )


def objective_of(codec: Codec, extractor: Extractor, batch: Batch) -> Objective:
    return Objective.of(codec.target(codec.encode(extractor(batch.images).numpy())), CPU)


def all_of(batch: Batch) -> Callable[[], list[bool]]:
    return lambda: [True] * len(batch.images)


def run(
    extractor: Extractor,
    batch: Batch,
    objective: Objective,
    schedule: Schedule,
    wanted: Callable[[], list[bool]] | None = None,
    pace: Pace | None = None,
) -> tuple[Optimised, int]:
    """What was found, and how often the loop yielded."""
    first = forward(extractor, batch) if pace is None else None
    steps, yields = optimise(Runner(extractor, pace), batch, objective, schedule, wanted or all_of(batch), first), 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value, yields
        yields += 1


@pytest.mark.parametrize("factory", FAMILIES)
def test_activation_lowers_the_loss_on_every_family(
    factory: str, features: Features, extractor: Extractor, batch: Batch
) -> None:
    objective = objective_of(Codec.train(factory, features), extractor, batch)
    found, yields = run(extractor, batch, objective, Schedule(4, 2.5))
    before, after = objective.loss(extractor(batch.images)), objective.loss(extractor(changed(batch, found.change)))
    assert (after < before).all()
    assert yields == 4
    assert found.change.abs().max() <= 1


@pytest.mark.parametrize("factory", ["PCA16,LSH", "LSHrt", "LSH"])
def test_the_sides_of_the_hyperplanes_are_those_of_the_code(factory: str, features: Features) -> None:
    codec = Codec.train(factory, features)
    codes = codec.encode(features[:100])
    target = codec.target(codes)
    assert target.signs is not None
    assert target.matrix is not None
    assert target.offset is not None
    projected = np.einsum("ntd,nd->nt", target.matrix, features[:100]) + target.offset
    assert ((projected >= 0) == (target.signs > 0)).mean() > 0.999  # equality up to rounding at the plane itself


@pytest.mark.parametrize("factory", ["IVF16,PQ4x4", "OPQ4_8,IVF16,PQ4x4", "IVF16,Flat"])
def test_a_feature_is_nearest_to_the_first_of_its_cells(factory: str, features: Features) -> None:
    codec = Codec.train(factory, features)
    target = codec.target(codec.encode(features[:200]))
    assert target.cells is not None
    space = Objective.of(target, CPU)._in_index(torch.from_numpy(features[:200]))
    nearest = (space[:, None] - torch.from_numpy(target.cells)).square().sum(dim=2).argmin(dim=1)
    assert (nearest == 0).all()
    assert len(np.unique(target.cells[0], axis=0)) == 16


def test_the_distance_of_a_target_is_what_a_search_reports(features: Features) -> None:
    for factory in ("IVF16,PQ4x4", "PQ4x4", "PCA16,LSH"):
        codec = Codec.train(factory, features)
        code = codec.encode(features[:1])
        ((_, distance),) = search(codec.filled(code), codec.probe(features[1], 16), 1)
        assert codec.target(code).distance(features[1]) == pytest.approx(distance, abs=1e-4)


def test_joined_targets_are_those_of_all_codes_at_once(features: Features) -> None:
    for factory in FAMILIES:
        codec = Codec.train(factory, features)
        codes = codec.encode(features[:5])
        whole, joined = codec.target(codes), Target.join([codec.target(code[None]) for code in codes])
        for name, part in vars(whole).items():
            other = getattr(joined, name)
            assert (part is None and other is None) or np.allclose(part, other, atol=1e-6)


def test_an_image_that_gains_little_more_leaves_the_batch_and_its_neighbours_go_on(
    features: Features, extractor: Extractor, batch: Batch
) -> None:
    objective = objective_of(Codec.train("IVF16,PQ4x4", features), extractor, batch)
    settling = run(extractor, batch, objective, Schedule(30, 1.0, settle=0.1))[0]
    unsettled = run(extractor, batch, objective, Schedule(3, 1.0))[0]
    assert (settling.steps < 30).all()
    assert unsettled.steps.tolist() == [3, 3, 3]
    for i in range(3):
        row = torch.tensor([i])
        alone = run(extractor, batch.take(row), objective.take(row), Schedule(30, 1.0, settle=0.1))[0]
        assert alone.steps[0] == settling.steps[i]
        assert (alone.change[0] - settling.change[i]).abs().mean() < 0.01  # rounding may flip one of Adam's signs


def test_a_batch_of_which_every_image_has_settled_ends_early(
    features: Features, extractor: Extractor, batch: Batch
) -> None:
    objective = objective_of(Codec.train("PQ4x4", features), extractor, batch)
    _, yields = run(extractor, batch, objective, Schedule(200, 1.0, settle=0.1))
    assert yields < 20


def test_no_forward_pass_only_confirms_that_a_step_brought_little(
    features: Features, extractor: Extractor, batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = objective_of(Codec.train("PQ4x4", features), extractor, batch)
    passes: list[int] = []

    def counted(extractor: Extractor, batch: Batch, delta: torch.Tensor) -> Forward:
        passes.append(len(batch.images))
        return forward(extractor, batch, delta)

    monkeypatch.setattr("workers.activation.optimiser.forward", counted)
    found, _ = run(extractor, batch, objective, Schedule(30, 1.0, settle=0.9))
    assert found.steps.tolist() == [2, 2, 2]
    assert passes == [3]  # before the second step, and none after it; the first one is the caller's


def test_an_image_that_is_no_longer_wanted_leaves_the_batch_and_its_neighbours_go_on(
    features: Features, extractor: Extractor, batch: Batch
) -> None:
    objective = objective_of(Codec.train("IVF16,PQ4x4", features), extractor, batch)
    asked: list[int] = []

    def wanted() -> list[bool]:
        asked.append(1)
        return [True, len(asked) < 3, True]

    found, _ = run(extractor, batch, objective, Schedule(5, 1.0), wanted)
    assert found.steps.tolist() == [5, 2, 5]
    whole, _ = run(extractor, batch, objective, Schedule(5, 1.0))
    for i in (0, 2):
        assert (found.change[i] - whole.change[i]).abs().mean() < 0.01


def test_the_same_image_gets_the_same_change_in_robust_mode_too(
    features: Features, extractor: Extractor, batch: Batch
) -> None:
    objective = objective_of(Codec.train("IVF16,PQ4x4", features), extractor, batch)
    schedule = Schedule(2, 1.0, views=True)
    together, _ = run(extractor, batch, objective, schedule)
    one = torch.tensor([1])
    alone, _ = run(extractor, batch.take(one), objective.take(one), schedule)
    assert (alone.change[0] - together.change[1]).abs().mean() < 0.01


def test_robust_mode_takes_few_steps_unless_the_options_say_how_many(features: Features) -> None:
    prepared, codec = prepare(pixels(NAMES[0]), 112, 3.0), Codec.train("PQ4x4", features)

    def schedule(steps: int, learning_rate: float | None = None) -> Schedule:
        options = ActivationOptions(robust=True, steps=steps, learning_rate=learning_rate)
        return Work(prepared, codec, options, steps).schedule

    default = schedule(10)
    assert default.views
    assert default.steps < 10
    assert [schedule(7).steps, schedule(20).steps, schedule(10, 1.0).steps] == [7, 20, 10]
    for steps in (5, 10):
        again = Work(prepared, codec, ActivationOptions(robust=True, steps=steps), 2 * steps, take_all_steps=True)
        assert again.schedule.steps == 2 * steps


def test_views_are_images_of_the_same_shape_that_carry_a_gradient(batch: Batch, extractor: Extractor) -> None:
    for see in islice(in_turn(), 10):
        images = batch.images.clone().requires_grad_(True)
        view = see(images, batch.aspects)
        assert view.shape == images.shape
        assert 0 <= float(view.detach().min()) <= float(view.detach().max()) <= 1 + 1e-6
        view.sum().backward()
        assert images.grad is not None
        assert images.grad.abs().sum() > 0
    assert torch.equal(mean_views(batch.images, batch.aspects)[0], batch.images)
    again = [F.mse_loss(a, b) for a, b in zip(*(mean_views(batch.images, batch.aspects) for _ in "ab"), strict=True)]
    assert max(again) == 0


@pytest.mark.parametrize("schedule", [Schedule(30, 1.0, settle=0.1), Schedule(3, 1.0)], ids=["settling", "all steps"])
def test_a_batch_of_fixed_size_whose_decisions_are_read_late_gives_the_same_changes(
    features: Features, extractor: Extractor, batch: Batch, schedule: Schedule
) -> None:
    objective = objective_of(Codec.train("IVF16,PQ4x4", features), extractor, batch)
    found, _ = run(extractor, batch, objective, schedule)
    late, _ = run(extractor, batch, objective, schedule, pace=Pace((1, 2, 8), late=True))
    assert late.steps.tolist() == found.steps.tolist()
    for one, other in zip(found.change, late.change, strict=True):
        assert (one - other).abs().mean() < 0.01  # rounding may flip one of Adam's signs


def test_images_that_are_no_longer_wanted_stop_in_a_batch_of_fixed_size_too(
    features: Features, extractor: Extractor, batch: Batch
) -> None:
    objective = objective_of(Codec.train("IVF16,PQ4x4", features), extractor, batch)
    asked: list[int] = []

    def wanted() -> list[bool]:
        asked.append(1)
        return [True, len(asked) < 3, len(asked) < 5]

    found, _ = run(extractor, batch, objective, Schedule(6, 1.0), wanted, Pace((1, 4), late=True))
    assert found.steps.tolist() == [6, 2, 4]
