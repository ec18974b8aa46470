"""All that is to be known of a GPU in ten minutes: ``python -m tests.benchmarks.gpu [--device cpu --quick]``.

GPU, ceilings, agreement of the forms, the engine at 1 to 256 images, forms of a step beside the roofline, codecs, the
whole worker without Redis and S3, a device that runs out of memory, search, and what FAISS trains and calibrates. A
part that fails says so, and the next one runs. Without a GPU it runs on the CPU, and what only a GPU can tell is
`not measured`.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy is loaded, as in workers

import itertools
import json
import logging
import multiprocessing
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from tasks.messages import ActivationOptions
from tests.benchmarks.activation import RESNET, Subject, drain, make_subject
from tests.photographs import crops
from workers.activation.compose import compose, prepare
from workers.activation.engine import BATCH_IMAGES, Engine, Work
from workers.activation.objective import Objective
from workers.activation.optimiser import Runner
from workers.activation.quality import quality
from workers.activation.step import Batch, Schedule, State
from workers.activation.views import in_turn
from workers.commands.worker import SWITCH_S
from workers.device.device import Device
from workers.evaluation.searching import exact_matches
from workers.extractors.agreement import Form, compare
from workers.extractors.prepare import _forms
from workers.extractors.probes import probes
from workers.extractors.registry import load_extractor
from workers.images import Limits, decode, encode
from workers.images.tensors import to_input
from workers.index.codec.codec import Codec, Features, search
from workers.index.codec.gpu import on_gpu, use_gpu
from workers.index.codec.probes import one_thread
from workers.index.verdicts.calibration import Calibration
from workers.index.verdicts.duplicates import near_distance, neighbours
from workers.index.verdicts.measure import Contents, calibrate, entries_as_queries

LIMITS = Limits(max_bytes=64 * 2**20, max_pixels=100_000_000)
NOT_MEASURED = "not measured"
_SIDE = 512  # of the photographs


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    part: str
    what: str
    value: str


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        sizes: of batches.
        in_flight: images that one process works on at once.
        processes: on one device, at the largest of `in_flight` but one.
        images: through each worker process.
        repeats: of each timing, of which the median counts.
        codes: to search among.
        features: of a collection that is trained and calibrated, with so many cells.
    """

    sizes: tuple[int, ...] = (1, 4, 16, 64, 256)
    in_flight: tuple[int, ...] = (16, 64, 256)
    processes: tuple[int, ...] = (1, 4, 12)
    images: int = 512
    repeats: int = 5
    matrix: int = 8192
    codes: int = 1_000_000
    features: int = 262_144
    cells: int = 1024


QUICK = Plan((1, 2), (2,), (1,), 4, 1, 128, 2000, 600, 8)  # each process of `worker` imports torch anew


class Bench:
    """One device with an extractor; each method is a part and yields what it found."""

    def __init__(self, name: str, device: torch.device, plan: Plan) -> None:
        self.name, self.device, self.plan = name, device, plan
        self.cuda = device.type == "cuda"
        self.subject: Subject = make_subject(name, device, None)
        self.extractor = self.subject.extractor
        self._engine = Engine(self.extractor)  # one for all, since it keeps its captured steps
        self.files = crops(max(plan.sizes), side=_SIDE if min(plan.images, 64) == 64 else 128)
        torch.set_num_threads(1)  # as in handlers

    def gpu(self) -> Iterator[tuple[str, str]]:
        yield "device", torch.cuda.get_device_name(self.device) if self.cuda else "cpu"
        memory = torch.cuda.get_device_properties(self.device).total_memory / 2**30 if self.cuda else None
        yield "memory", f"{memory:.0f} GiB" if memory else NOT_MEASURED
        yield "cores", str(len(os.sched_getaffinity(0)))
        yield "torch, CUDA", f"{torch.__version__}, {torch.version.cuda}"

    def ceilings(self) -> Iterator[tuple[str, str]]:
        n = self.plan.matrix
        for dtype in (torch.float32, torch.bfloat16, *([torch.float16] if self.cuda else [])):
            matrix = torch.rand(n, n, device=self.device).to(dtype)
            seconds = self.seconds(partial(torch.mm, matrix, matrix))
            yield f"product of matrices, {dtype}", f"{2 * n**3 / seconds / 1e12:.2f} TFLOP/s"
        data = torch.rand(n, n, device=self.device)
        yield "memory", f"{2 * data.nbytes / self.seconds(data.clone) / 1e9:.0f} GB/s"
        if self.cuda:
            for name, host in (("pageable", data.cpu()), ("pinned", data.cpu().pin_memory())):
                seconds = self.seconds(lambda host=host: host.to(self.device, non_blocking=True))
                yield f"copies to the device, {name}", f"{data.nbytes / seconds / 1e9:.1f} GB/s"

    def agreement(self) -> Iterator[tuple[str, str]]:
        images = probes(self.extractor.input_size, self.device)
        exact = Form(self.subject.loop.net)
        for dtype in (torch.float16, torch.bfloat16):
            for kind, form in zip(("all layers", "last layers in float32"), _forms(exact.net, dtype), strict=False):
                yield f"{dtype}, {kind}", str(compare(form, exact, images))
        yield "chosen", f"optimises {'in another form than' if self.extractor.half_guides else 'as'} it registers"

    def forms(self) -> Iterator[tuple[str, str]]:
        """Of the network: what registers, and what guides the optimiser."""
        side = self.extractor.input_size
        for name, run in (("registers", self.extractor), ("guides", self.extractor.guide)):
            for size in self.plan.sizes:
                images = torch.rand(size, 3, side, side, device=self.device, requires_grad=True)
                forwards = self.seconds(torch.no_grad()(partial(run, images)))
                both = self.seconds(lambda run=run, images=images: torch.autograd.grad(run(images).sum(), images))
                yield (
                    f"{name}, {size} images",
                    f"{1000 * forwards / size:.3f} ms an image, with its gradient {1000 * both / size:.3f}",
                )

    def engine(self) -> Iterator[tuple[str, str]]:
        for size, steps in itertools.product(self.plan.sizes, (10, 1)):
            works = self.works(size, steps)
            run = partial(self._activate, works)
            seconds = self.seconds(run)
            kernels = f"{self.kernel_ms(run) / size:.3f}" if self.cuda else NOT_MEASURED
            yield (
                f"{size} images, {steps} steps",
                f"{1000 * seconds / size:.3f} ms an image, kernels {kernels}, {size / seconds:.0f} images/s",
            )

    def variants(self) -> Iterator[tuple[str, str]]:
        size, side = min(64, max(self.plan.sizes)), self.extractor.input_size
        with FlopCounterMode(display=False) as flops, torch.no_grad():
            self.extractor(torch.rand(1, 3, side, side, device=self.device))
        step_flops = 2 * flops.get_total_flops()  # backwards to the image costs what forwards costs
        matrix = torch.rand(self.plan.matrix, self.plan.matrix, device=self.device).to(
            torch.float16 if self.cuda else torch.float32
        )
        ceiling = 2 * len(matrix) ** 3 / self.seconds(partial(torch.mm, matrix, matrix))
        yield "roofline of a step", f"{1000 * step_flops / ceiling:.3f} ms an image ({step_flops / 1e9:.1f} GFLOP)"
        for name, runner in self._runners().items():
            state, take_step = runner.bind(self._state(size), Schedule(10, 1.0), in_turn())
            yield f"{name}, batch {len(state.active)}", f"{1000 * self.seconds(take_step) / size:.3f} ms an image"

    def codecs(self) -> Iterator[tuple[str, str]]:
        data = self.files[0]
        original = decode(data, LIMITS)
        prepared = prepare(original.pixels, self.extractor.input_size, 3.0)
        change = torch.zeros_like(prepared.image)
        stages: dict[str, Callable[[], Any]] = {
            "decode": lambda: decode(data, LIMITS),
            "prepare": lambda: prepare(original.pixels, self.extractor.input_size, 3.0),
            "compose": lambda: compose(original.samples, prepared, change),
            "encode": lambda: encode(original.samples, original),
            "quality": lambda: quality(original.pixels, original.pixels),
        }
        for name, run in stages.items():
            yield name, f"{1000 * self.seconds(run):.2f} ms an image"

    def worker(self) -> Iterator[tuple[str, str]]:
        """A process a worker, each with threads that do what handlers do."""
        usual = self.plan.in_flight[max(0, len(self.plan.in_flight) - 2)]
        cases = {(1, n) for n in self.plan.in_flight} | {(n, usual) for n in self.plan.processes}
        for processes, in_flight in sorted(cases):
            rate, busy, batch = self._workers(processes, in_flight)
            yield (
                f"{processes} processes, {in_flight} images in flight each",
                f"{rate:.1f} images/s, device busy {busy:.0%}, mean batch {batch:.1f}",
            )

    def out_of_memory(self) -> Iterator[tuple[str, str]]:
        """All images of a batch that does not fit come through in smaller ones."""
        size = max(self.plan.sizes)
        small = _Small(self.extractor, max(1, size // 3))
        device = Device(small, batch_images=size, max_batch_delay_s=1.0)
        device.start()
        with ThreadPoolExecutor(size) as pool:
            found = list(pool.map(device.activate, self.works(size, 2)))
        device.stop()
        yield f"a third of {size} images fits", f"{len(found)} of {size} done, in batches of {found[0].batch_images}"

    def search(self) -> Iterator[tuple[str, str]]:
        import faiss  # noqa: PLC0415  # after torch

        codec, d = self.subject.codec, self.extractor.dimension
        random = np.random.default_rng(0)
        vectors = random.standard_normal((self.plan.codes, d)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        index = codec.filled(codec.encode(vectors))
        for nprobe in (1, 16):
            with one_thread():
                seconds = self.seconds(lambda n=nprobe: search(index, codec.probe(vectors[0], n), 10))
            yield f"CPU, {self.plan.codes:,} codes, nprobe {nprobe}", f"{1000 * seconds:.2f} ms a query"
        if not self.cuda or not getattr(faiss, "get_num_gpus", lambda: 0)():
            yield "GPU", NOT_MEASURED
            return
        on_gpu = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
        for count in (1, 64):
            seconds = self.seconds(lambda n=count: on_gpu.search(vectors[:n], 10))
            yield f"GPU, {count} queries at once", f"{1000 * seconds / count:.3f} ms a query"

    def collections(self) -> Iterator[tuple[str, str]]:
        """What is computed for a collection, by the processor (products of matrices by one thread) and by the GPU."""
        count, cells = self.plan.features, self.plan.cells
        asked = min(1000, count // 2)  # queries of exhaustive searches
        features = _unit_vectors(count, 0)
        for factory in (f"IVF{cells},PQ8x8", f"OPQ8_64,IVF{cells},PQ8x8"):
            told = partial(_errors, features[:asked])
            yield from self._by_both(f"trains {factory} on {count:,}", partial(Codec.train, factory, features), told)
        queries, registered = _unit_vectors(asked, 1), features[:asked]
        queries[: asked // 2] = registered[: asked // 2]
        exact = partial(exact_matches, features[asked:], registered, queries)
        yield from self._by_both(f"{asked} exact searches among {count:,}", exact, _same_matches)
        near = near_distance(features)
        alike = lambda: list(neighbours(queries, features, near))  # noqa: E731
        yield from self._by_both(f"near-duplicates of {asked} among {count:,}", alike, _same_sets)
        unrelated = entries_as_queries(features, np.arange(asked), near)
        for factory in (f"IVF{cells},PQ8x8", f"IVF{cells},Flat"):
            codec = Codec.train(factory, features)
            contents = Contents(codec, codec.encode(features), count // 2)
            _ = contents.index
            measure = partial(calibrate, contents, [unrelated], 0.01, "random")
            yield from self._by_both(f"calibrates {factory}", measure, _differences)

    def _by_both(
        self, what: str, run: Callable[[], Any], compared: Callable[[Any, Any], str]
    ) -> Iterator[tuple[str, str]]:
        use_gpu(torch.device("cpu"))
        seconds, by_cpu = _timed(run)
        yield f"{what}, CPU", f"{seconds:.2f} s"
        if not self.cuda:
            yield f"{what}, GPU", NOT_MEASURED
            return
        use_gpu(self.device, least_work=0)
        try:
            with _on_the_gpu_only():
                run()  # the first use of the GPU costs more
                with _Memory(self.device) as memory:
                    seconds, by_gpu = _timed(run)
        finally:
            use_gpu(torch.device("cpu"))
        yield f"{what}, GPU", f"{seconds:.2f} s, {memory.taken_bytes / 2**30:.1f} GiB; {compared(by_cpu, by_gpu)}"

    # ── how it is measured ───────────────────────────────────────────────────────────────────────────────────────────

    def works(self, count: int, steps: int) -> list[Work]:
        options = ActivationOptions(steps=steps)
        prepared = [
            prepare(decode(data, LIMITS).pixels, self.extractor.input_size, options.alpha)
            for data in itertools.islice(itertools.cycle(self.files), count)
        ]
        works = [Work(p, self.subject.codec, options, steps, take_all_steps=True) for p in prepared]
        return [self._engine.staged(work) for work in works]

    def seconds(self, run: Callable[[], Any]) -> float:
        """The median, after one run to warm up."""
        times = []
        for _ in range(1 + self.plan.repeats):
            began = time.perf_counter()
            run()
            if self.cuda:
                torch.cuda.synchronize(self.device)
            times.append(time.perf_counter() - began)
        return statistics.median(times[1:])

    def kernel_ms(self, run: Callable[[], Any]) -> float:
        """Between two events of the device."""
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        began.record()
        run()
        ended.record()
        torch.cuda.synchronize(self.device)
        return began.elapsed_time(ended)

    def _activate(self, works: Sequence[Work]) -> None:
        drain(self._engine.activate(works))

    def _state(self, size: int) -> State:
        side, device = self.extractor.input_size, self.device
        images = torch.rand(size, 3, side, side, device=device)
        square = torch.eye(side, device=device).expand(size, -1, -1).contiguous()
        ones = torch.ones(size, device=device)
        batch = Batch(images, 0.02 * torch.ones_like(images), square, square, ones, ones == 0)
        features = self._engine.features(images)
        target = self.subject.codec.target(self.subject.codec.encode(features))
        return State.of(batch, Objective.of(target, device))

    def _save(self, folder: Path) -> _Saved:
        extractor, codec = self.name, folder / "codec.faiss"
        if self.name == RESNET:
            extractor = str(folder / "random.torchvision.pt")
            torch.save(self.subject.loop.net.state_dict(), extractor)
        self.subject.codec.write(codec)
        return _Saved(extractor, codec, self.subject.codec.factory)

    def _runners(self) -> dict[str, Runner]:
        plain = Runner(self.extractor)
        runners = {"one operation after the other": plain}
        if self.cuda:
            plain._captured = None
            runners["captured as a graph"] = Runner(self.extractor)
            compiled = Runner(_Compiled(self.extractor))
            compiled._captured = None
            runners["network compiled"] = compiled
        return runners

    def _workers(self, processes: int, in_flight: int) -> tuple[float, float, float]:
        """Images a second, the share of time that the device was busy, and the mean batch."""
        context = multiprocessing.get_context("spawn")  # CUDA cannot be forked
        with tempfile.TemporaryDirectory() as folder, context.Pool(processes) as pool:
            saved = self._save(Path(folder))
            together = context.Manager().Barrier(processes)
            arguments = (saved, str(self.device), in_flight, self.files, self.plan.images, together)
            found = pool.starmap(_work_alone, [arguments] * processes, chunksize=1)
        seconds = max(end for _, end, _, _ in found) - min(begin for begin, _, _, _ in found)
        busy = sum(ms for _, _, ms, _ in found) / 1000 / seconds
        return processes * self.plan.images / seconds, busy, statistics.mean(batch for *_, batch in found)


@dataclass(frozen=True)
class _Saved:
    """An extractor and a codec for other processes."""

    extractor: str
    codec: Path
    factory: str


class _Small:
    """An extractor whose device has memory for so many images only."""

    def __init__(self, extractor: Any, most: int) -> None:
        self._extractor, self._most = extractor, most

    def __getattr__(self, name: str) -> Any:
        return getattr(self._extractor, name)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self._check(images)
        return self._extractor(images)  # type: ignore[no-any-return]

    def guide(self, images: torch.Tensor) -> torch.Tensor:
        self._check(images)
        return self._extractor.guide(images)  # type: ignore[no-any-return]

    def _check(self, images: torch.Tensor) -> None:
        if len(images) > self._most:
            raise torch.OutOfMemoryError(f"{len(images)} images do not fit")


class _Compiled(_Small):
    """An extractor whose guiding form is compiled."""

    def __init__(self, extractor: Any) -> None:
        super().__init__(extractor, 10**9)
        self._guide = torch.compile(extractor.guide)

    def guide(self, images: torch.Tensor) -> torch.Tensor:
        return self._guide(images)  # type: ignore[no-any-return]


def _unit_vectors(count: int, seed: int) -> Features:
    vectors = np.random.default_rng(seed).standard_normal((count, 512)).astype(np.float32)
    unit: Features = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _timed(run: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    found = run()
    return time.perf_counter() - began, found


def _errors(features: Features, *codecs: Codec) -> str:
    moved = (features - codec.decode(codec.encode(features)) for codec in codecs)
    means = (f"{np.einsum('nd,nd->n', one, one).mean():.4f}" for one in moved)
    return f"mean squared errors {', '.join(means)}"


def _same_matches(by_cpu: tuple[Any, Any], by_gpu: tuple[Any, Any]) -> str:
    return f"{np.mean(by_cpu[0] == by_gpu[0]):.2%} equal, distances within {np.abs(by_cpu[1] - by_gpu[1]).max():.1e}"


def _same_sets(by_cpu: list[frozenset[int]], by_gpu: list[frozenset[int]]) -> str:
    return f"{statistics.mean(a == b for a, b in zip(by_cpu, by_gpu, strict=True)):.2%} equal"


def _differences(by_cpu: Calibration, by_gpu: Calibration) -> str:
    rates = max(np.abs(np.subtract(a.rates, b.rates)).max() for a, b in zip(by_cpu.curves, by_gpu.curves, strict=True))
    scales = max(abs(b.scale / a.scale - 1) for a, b in zip(by_cpu.curves, by_gpu.curves, strict=True))
    return f"rates within {rates:.1e}, scales within a share of {scales:.1e}"


@contextmanager
def _on_the_gpu_only() -> Iterator[None]:
    """What falls back to the CPU is an error here, and says why."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger(on_gpu.__module__)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
    if said:
        raise RuntimeError(said[0])


class _Memory:
    """How much less of a GPU's memory is free meanwhile, at most, than at the beginning."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.taken_bytes = 0

    def __enter__(self) -> _Memory:
        self._free = self._least = torch.cuda.mem_get_info(self._device)[0]
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self.taken_bytes = self._free - self._least

    def _watch(self) -> None:
        while not self._ended.wait(0.005):
            self._least = min(self._least, torch.cuda.mem_get_info(self._device)[0])


def _work_alone(
    saved: _Saved, device: str, in_flight: int, files: list[bytes], count: int, together: threading.Barrier
) -> tuple[float, ...]:
    """Beginning, end, milliseconds that the device worked, and the mean batch, in a process of its own."""
    sys.setswitchinterval(SWITCH_S)  # as in workers
    extractor = load_extractor(saved.extractor, torch.device(device))
    codec = Codec.read(saved.codec, saved.factory)
    served = Device(extractor, batch_images=BATCH_IMAGES[torch.device(device).type])
    served.warm(codec)
    served.start()
    handle = partial(_handle, served, codec, extractor.input_size)
    chosen = list(itertools.islice(itertools.cycle(files), count))
    with ThreadPoolExecutor(in_flight, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        list(pool.map(handle, chosen[:in_flight]))
        together.wait()
        began = time.time()
        found = list(pool.map(handle, chosen))
        ended = time.time()
    served.stop()
    return began, ended, sum(ms for ms, _ in found), statistics.mean(batch for _, batch in found)


def _handle(device: Device, codec: Codec, side: int, data: bytes) -> tuple[float, int]:
    """What a handler does for an image, without Redis and S3."""
    options, original = ActivationOptions(), decode(data, LIMITS)
    prepared = prepare(original.pixels, side, options.alpha)
    found = device.activate(Work(prepared, codec, options, options.steps))
    published = decode(encode(compose(original.samples, prepared, found.change), original).data, LIMITS)
    codec.encode(device.extract(to_input(published.pixels, side), can_wait=True)[None])
    quality(original.pixels, published.pixels)
    return found.device_ms, found.batch_images


PARTS = (
    "gpu", "ceilings", "agreement", "forms", "engine", "variants", "codecs", "worker", "out_of_memory", "search",
    "collections",
)  # fmt: skip


@click.command(help=__doc__)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N")
@click.option("--extractor", default="resnet50", show_default=True, help="resnet50: random weights; compact is faster.")
@click.option("--part", "parts", multiple=True, type=click.Choice(PARTS), default=PARTS, help="Default: all.")
@click.option("--quick", is_flag=True, help="Tiny sizes and `compact`: shows that all parts run, and nothing else.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the rows to this file.")
def main(device: str, extractor: str, parts: tuple[str, ...], quick: bool, json_path: Path | None) -> None:
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if quick:
        torch.set_num_threads(1)  # teams of threads wait for each other where a machine is shared
    bench = Bench("compact" if quick else extractor, torch.device(chosen), QUICK if quick else Plan())
    rows = []
    for part in parts:
        for row in measured(part, getattr(bench, part)):
            rows.append(row)
            click.echo(f"{row.part:<14}{row.what:<52}{row.value}")
    if json_path:
        json_path.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


def measured(part: str, run: Callable[[], Iterator[tuple[str, str]]]) -> Iterator[Row]:
    """The rows of a part; one that fails ends with the reason, so that the other parts are measured."""
    try:
        for what, value in run():
            yield Row(part, what, value)
    except Exception as error:
        yield Row(part, "failed", f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")


if __name__ == "__main__":
    main()
