"""FAISS on a GPU computes what it computes on the CPU, and the CPU steps in where it cannot."""

from __future__ import annotations

import logging
import sys
import weakref
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import faiss
import numpy as np
import pytest
import torch

from tests.collections import unit_vectors
from workers.evaluation import searching
from workers.evaluation.searching import exact_matches
from workers.index.codec import gpu
from workers.index.codec.codec import Codec, Features, trained_index
from workers.index.codec.family import Family
from workers.index.codec.gpu import LEAST_WORK, Gpu, has_gpu_form, on_gpu, use_gpu
from workers.index.codec.gpu_trial import disagreement
from workers.index.codec.probes import one_thread
from workers.index.verdicts import duplicates
from workers.index.verdicts.calibration import Calibration
from workers.index.verdicts.duplicates import neighbours
from workers.index.verdicts.measure import Contents, Queries, _as_in, calibrate, entries_as_queries, first_assets

FACTORIES = ("PQ4x4", "IVF16,PQ4x4", "IVF16,PQ4x8", "OPQ4_8,IVF16,PQ4x4", "IVF16,Flat", "IVF16,SQ8", "PCA8,LSH", "Flat")
NEAR = 0.3
needs_gpu = pytest.mark.skipif(
    not (torch.cuda.is_available() and hasattr(faiss, "StandardGpuResources")),
    reason="needs an NVIDIA GPU, and faiss-gpu",
)
needs_none = pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
# FAISS on the CPU, in a GPU's place.
nearest_on_cpu = partial(faiss.knn, metric=faiss.METRIC_INNER_PRODUCT)


@pytest.fixture(autouse=True)
def _no_gpu_afterwards() -> Iterator[None]:
    with one_thread():  # a team of threads is slow beside other processes
        yield
    use_gpu(torch.device("cpu"))


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger=gpu.__name__)
    return caplog


def features(count: int = 1_500) -> Features:
    return unit_vectors(count, 0)


def versions(of: Features, times: int) -> Features:
    """Near-duplicates of each feature."""
    noise = 0.05 * np.random.default_rng(5).standard_normal((len(of) * times, of.shape[1])).astype(np.float32)
    moved = np.repeat(of, times, axis=0) + noise
    unit: Features = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    return unit


def error(index: object, some: Features) -> float:
    codec = Codec(index, "any")
    return float(np.square(some - codec.decode(codec.encode(some))).sum(axis=1).mean())


def archive() -> Features:
    """With a picture that it holds a hundred times, and others twice."""
    some = features(1_000)
    return np.concatenate([some, versions(some[:1], 100), versions(some[1:5], 1)])


def contents_of(factory: str) -> tuple[Contents, Queries]:
    some = features()
    codec = Codec.train(factory, some)
    queries = entries_as_queries(some, np.arange(400), NEAR)
    return Contents(codec, codec.encode(some), len(some) // 2), queries


def agree(one: Calibration, other: Calibration) -> bool:
    pairs = list(zip(one.curves, other.curves, strict=True))
    rates = all(np.allclose(a.rates, b.rates, atol=0.01) for a, b in pairs)
    return rates and all(a.scale == pytest.approx(b.scale, rel=1e-3) for a, b in pairs)


# ── what a GPU is given to do, done by the CPU ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("factory", FACTORIES)
def test_k_means_in_an_index_that_is_lent_trains_what_it_trains_without(factory: str) -> None:
    some = features()
    lent, own = trained_index(factory, some, faiss.IndexFlatL2), trained_index(factory, some)
    if "LSH" in factory:
        assert (Codec(lent, factory).encode(some) == Codec(own, factory).encode(some)).all()
    else:
        assert error(lent, some) == pytest.approx(error(own, some), rel=0.02, abs=1e-9)


def test_every_k_means_of_a_training_uses_the_indexes_that_are_lent() -> None:
    made: list[faiss.IndexFlatL2] = []

    def flat(dimension: int) -> faiss.IndexFlatL2:
        made.append(faiss.IndexFlatL2(dimension))
        return made[-1]

    trained_index("OPQ4_8,IVF16,PQ2x4", features(), flat)
    assert [(index.d, index.ntotal) for index in made] == [(2, 256), (4, 16), (8, 16)]  # rotation, code, cells
    assert all(index.thisown for index in made)  # Python frees them, and the memory of a GPU that they hold


def test_nothing_points_to_a_lent_index_after_training() -> None:
    index = trained_index("OPQ4_8,IVF16,PQ4x4", features(), faiss.IndexFlatL2)
    inner = Family(index).inner
    assert (inner.clustering_index, inner.pq.assign_index) == (None, None)
    assert Codec(index, "any").filled(Codec(index, "any").encode(features())).ntotal == 1_500


def test_near_duplicates_are_those_of_comparing_all_however_many_a_picture_has() -> None:
    some = archive()
    expected = list(duplicates._compared(some, some, NEAR))
    assert max(map(len, expected)) > duplicates._FEW
    assert duplicates._found_by(nearest_on_cpu, some, some, NEAR) == expected


def test_an_exact_search_by_the_nearest_of_either_kind_is_that_of_comparing_all() -> None:
    references, registered = features(), unit_vectors(50, 1)
    queries = np.concatenate([versions(registered, 2), references[:20], unit_vectors(20, 3)])
    positions, distances = searching._matches_by(nearest_on_cpu, references, registered, queries)
    expected = searching._matches_in_parts(references, registered, queries)
    assert (positions == expected[0]).all()
    assert distances == pytest.approx(expected[1], abs=1e-5)


def test_an_image_that_is_a_reference_too_is_the_references_match() -> None:
    references = features()
    positions, _ = searching._matches_by(nearest_on_cpu, references, references[:50], references[:50])
    assert set(positions.tolist()) == {-1}


@pytest.mark.parametrize("factory", ["IVF16,PQ4x8", "IVF32,Flat", "Flat"])
def test_a_calibration_by_a_copy_of_the_index_is_that_by_the_index(factory: str) -> None:
    contents, queries = contents_of(factory)
    copied = faiss.clone_index(contents.index)
    if isinstance(copied, faiss.IndexIVFPQ):  # rounds otherwise then, as a GPU does
        copied.use_precomputed_table, copied.precomputed_table = -1, faiss.AlignedTableFloat32()
    on_copy = replace(contents, on_gpu=copied)
    measured = calibrate(contents, [queries], 0.05, "random")
    assert agree(calibrate(on_copy, [queries], 0.05, "random"), measured)
    scores, by_copy = (first_assets(c, measured.curve(1), features()[:200])[1] for c in (contents, on_copy))
    assert by_copy == pytest.approx(scores, abs=1e-3)


def test_an_entry_has_the_distance_of_the_deeper_search_in_both() -> None:
    exact, rounded = np.array([0.1, 0.2], np.float32), np.array([0.1, 0.15, 0.2], np.float32)
    rounded += np.spacing(rounded)
    deeper = rounded, np.array([5, 9, 7])
    distances, positions = _as_in(deeper, (exact, np.array([5, 7])))
    assert distances.tolist() == rounded[[0, 2]].tolist()
    assert positions.tolist() == [5, 7]
    assert _as_in(deeper, (exact, np.array([5, 3])))[0].tolist() == [rounded[0], exact[1]]


@pytest.mark.parametrize(
    ("factory", "can"),
    [("Flat", True), ("IVF16,Flat", True), ("OPQ4_8,IVF16,PQ4x8", True), ("IVF16,SQ8", True), ("IVF16,PQ4x4", False),
     ("PQ4x8", False), ("PCA8,LSH", False)],
)  # fmt: skip
def test_which_indexes_a_gpu_can_search_is_known_before(factory: str, can: bool) -> None:
    assert has_gpu_form(faiss.index_factory(16, factory)) == can


def test_a_trial_passes_what_agrees_with_the_cpu_and_nothing_else() -> None:
    def copied(index: object) -> object:
        return faiss.clone_index(Family(index).inner)

    def other(queries: Features, some: Features, k: int) -> object:
        return nearest_on_cpu(queries, some[::-1] * 1.1, k)

    assert disagreement(faiss.IndexFlatL2, copied, nearest_on_cpu) == ""
    assert "cosines" in disagreement(faiss.IndexFlatL2, copied, other)  # type: ignore[arg-type]
    zeros = np.zeros((300, 64), dtype=np.float32)
    wrong = faiss.index_factory(64, "IVF1,Flat")
    wrong.train(zeros)
    wrong.add(zeros)
    assert "distances" in disagreement(faiss.IndexFlatL2, lambda _: wrong, nearest_on_cpu)


class _WrongDeepDown:
    """A copy of an index that is wrong beyond the 64 nearest, as FAISS' other code for deep searches on a GPU could
    be."""

    def __init__(self, index: Any) -> None:
        self._index = index

    def search(self, queries: Features, k: int, params: Any) -> tuple[Features, Any]:
        distances, positions = self._index.search(queries, k, params=params)
        distances[:, 64:] += 0.1
        return distances, positions


@pytest.mark.parametrize("factory", ["Flat", "IVF16,Flat", "IVF16,SQ8", "IVF16,PQ4x8"])
def test_a_trial_searches_each_kind_that_a_gpu_can_search_as_deep_as_a_calibration(factory: str) -> None:
    kind = type(faiss.index_factory(64, factory))
    found = disagreement(
        faiss.IndexFlatL2, lambda index: _WrongDeepDown(index) if type(index) is kind else index, nearest_on_cpu
    )
    assert found.startswith(f"distances in {factory} ")


# ── without a GPU, and on one that fails ─────────────────────────────────────────────────────────────────────────────


def test_work_that_is_not_worth_it_and_a_cpu_leave_the_gpu_alone(said: pytest.LogCaptureFixture) -> None:
    for device, work in (("cuda:0", LEAST_WORK / 2), ("cpu", 1e30)):
        use_gpu(torch.device(device))
        assert on_gpu("anything", work, lambda _: "GPU", lambda: "CPU") == "CPU"
    assert said.messages == []


@needs_none
def test_where_faiss_can_use_no_gpu_everything_runs_on_the_cpu_and_the_log_says_so_once(
    said: pytest.LogCaptureFixture,
) -> None:
    some = features()
    expected = Codec.train("IVF16,PQ4x4", some).encode(some)
    use_gpu(torch.device("cuda:0"), least_work=0)
    assert (Codec.train("IVF16,PQ4x4", some).encode(some) == expected).all()
    assert list(neighbours(some[:50], some, NEAR)) == list(duplicates._compared(some[:50], some, NEAR))
    (message,) = said.messages
    assert message.startswith("FAISS trains and calibrates on the CPU: ")
    built = hasattr(faiss, "StandardGpuResources")
    assert ("a trial on GPU 0 ended with" if built else "install faiss-gpu") in message


@needs_none
def test_a_gpu_that_fails_after_its_trial_leaves_the_work_to_the_cpu(
    said: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_gpu(torch.device("cuda:0"), least_work=0)
    monkeypatch.setattr(gpu._LENDER, "_usable", True)  # it was, at its trial
    for _ in range(2):
        assert on_gpu("Training", 1, lambda _: "GPU", lambda: "CPU") == "CPU"
    assert len(said.messages) == 2
    assert said.messages[0].startswith("Training runs on the CPU: on the GPU it failed: ")


def test_a_trial_that_cannot_start_leaves_the_work_to_the_cpu(
    said: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)  # as if FAISS were built for GPUs
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    use_gpu(torch.device("cuda:0"), least_work=0)
    assert on_gpu("anything", 1, lambda _: "GPU", lambda: "CPU") == "CPU"
    (message,) = said.messages
    assert message.startswith("FAISS trains and calibrates on the CPU: a trial on GPU 0 failed: ")


def test_errors_of_the_work_itself_are_the_callers(said: pytest.LogCaptureFixture) -> None:
    def fail() -> str:
        raise ValueError("of the work")

    use_gpu(torch.device("cpu"))
    with pytest.raises(ValueError, match="of the work"):
        on_gpu("anything", 1, lambda _: "GPU", fail)


# ── on a GPU (AII_DEVICE=cuda) ───────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def on_the_gpu(said: pytest.LogCaptureFixture) -> Iterator[None]:
    """What is computed meanwhile was computed on the GPU, not by the CPU in its place."""
    use_gpu(torch.device("cuda:0"), least_work=0)
    yield
    records = said.get_records("call")
    assert records
    assert [record.getMessage() for record in records if record.levelno >= logging.WARNING] == []


@needs_gpu
@pytest.mark.usefixtures("on_the_gpu")
@pytest.mark.parametrize("factory", FACTORIES)
def test_a_gpu_trains_as_good_a_codec(factory: str) -> None:
    some = features()
    codec = Codec.train(factory, some)
    own = trained_index(factory, some)
    if "LSH" in factory:
        assert np.mean(codec.encode(some) == Codec(own, factory).encode(some)) > 0.99
    else:
        assert error(codec.filled(codec.encode(some[:0])), some) == pytest.approx(error(own, some), rel=0.05, abs=1e-6)


@needs_gpu
@pytest.mark.usefixtures("on_the_gpu")
def test_a_gpu_finds_the_same_near_duplicates() -> None:
    some = archive()
    assert list(neighbours(some, some, NEAR)) == list(duplicates._compared(some, some, NEAR))


@needs_gpu
@pytest.mark.usefixtures("on_the_gpu")
def test_a_gpu_finds_the_same_exact_matches() -> None:
    references, registered = features(), unit_vectors(50, 1)
    queries = np.concatenate([versions(registered, 2), references[:20], unit_vectors(20, 3)])
    (positions, distances), expected = (
        exact_matches(references, registered, queries), searching._matches_in_parts(references, registered, queries)
    )  # fmt: skip
    assert (positions == expected[0]).all()
    assert distances == pytest.approx(expected[1], abs=1e-5)


@needs_gpu
def test_what_fails_on_a_gpu_holds_none_of_its_memory_while_the_cpu_does_it() -> None:
    lent: list[weakref.ref[Gpu]] = []

    def fail(gpu: Gpu) -> bool:
        lent.append(weakref.ref(gpu))
        raise RuntimeError("of FAISS")

    use_gpu(torch.device("cuda:0"), least_work=0)
    assert on_gpu("anything", 1, fail, lambda: lent[0]() is None)


@needs_gpu
@pytest.mark.parametrize("factory", ["IVF16,PQ4x8", "IVF32,Flat", "IVF16,SQ8", "Flat"])
def test_a_gpu_calibrates_as_the_cpu_does(factory: str, said: pytest.LogCaptureFixture) -> None:
    contents, queries = contents_of(factory)
    expected = calibrate(contents, [queries], 0.05, "random")
    use_gpu(torch.device("cuda:0"), least_work=0)
    assert agree(calibrate(contents, [queries], 0.05, "random"), expected)
    assert [record.message for record in said.records if record.levelno >= logging.WARNING] == []
