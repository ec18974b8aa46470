"""The device: the only threads that run the extractor.

Handler threads hand over one image each and wait; the device makes batches of them. A feature, for a query or a
verification, never waits for a whole batch of activations: on a GPU, one thread extracts features between two steps of
a batch; on a CPU, a second thread extracts them meanwhile, and the system shares the cores. Clients that ask at the
same time share small batches (:mod:`workers.device.clients`). A batch that fails is halved until the image that fails
is alone: the others are not affected.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

import torch

from tasks.errors import DeviceFailure, DeviceFull, NotReady, WorkerStopping
from workers.activation.engine import Activated, Engine, Work
from workers.device.busy import BusyTime
from workers.device.clients import FairBatches, client_now
from workers.device.priority import lower_priority
from workers.extractors.base import Extractor
from workers.index.codec.codec import Codec, Features

logger = logging.getLogger(__name__)

_MAX_EXTRACT_BATCH: Final = 64
_EXTRACTION: Final = "extraction"
_T = TypeVar("_T")


@dataclass(eq=False)
class _Waiting(Generic[_T]):
    """One image that was handed over, for the client whose job the thread runs, if any. `due`: when its batch starts at
    the latest, on the monotonic clock."""

    work: _T
    due: float = 0.0
    client: str | None = field(default_factory=client_now)
    future: Future[Any] = field(default_factory=Future)


class Device:
    """Start it once a process; every public method may be called from any thread.

    Args:
        batch_images: most images optimised together.
        max_batch_delay_s: how long a batch of activations that is not full waits for more images.
        max_extract_delay_s: how long a call of :meth:`extract` with `can_wait` waits for others to share its batch, at
            most. By default 50 ms on a CPU, where the images of one activation batch come back for verification
            within that time, and 5 ms on a GPU, where a whole batch takes that long.
        alternates: whether one thread runs activations and extractions in turn; by default on all devices but a CPU.
        on_broken_device: called when the device fails on every image. A CUDA device that failed once may never work
            again in this process, so the default ends it, rather than failing one good job after the other.
    """

    def __init__(
        self,
        extractor: Extractor,
        *,
        batch_images: int,
        max_batch_delay_s: float = 0.01,
        max_extract_delay_s: float | None = None,
        alternates: bool | None = None,
        on_broken_device: Callable[[], None] | None = None,
    ) -> None:
        on_cpu = extractor.device.type == "cpu"
        self._engine = Engine(extractor)
        self._input_size = extractor.input_size
        self._on_broken_device = on_broken_device or end_process
        self._batch_images = batch_images
        self._max_batch_delay_s = max_batch_delay_s
        default_s = 0.05 if on_cpu else 0.005
        self._max_extract_delay_s = default_s if max_extract_delay_s is None else max_extract_delay_s
        # Callers read a queue's attribute before they get the lock: it must stay the same object.
        self._extractions: Final[deque[_Waiting[torch.Tensor]]] = deque()
        self._activations: Final[deque[_Waiting[Work]]] = deque()
        # While several clients ask, a batch on a CPU has one image of each, since it takes nearly as long as its images
        # one by one; elsewhere it takes little longer than one image, and has any number.
        self._fair = FairBatches(1 if on_cpu else None)
        self._optimising = False
        # What the device has memory for, where that is less than a batch: by kind of work.
        self._ceilings: dict[Hashable, int] = {}
        self._wake = threading.Condition()
        self._stopping = False
        self.busy: Final = BusyTime()
        self._alternates = not on_cpu if alternates is None else alternates
        roles = [(True, True)] if self._alternates else [(True, False), (False, True)]
        self._threads = [threading.Thread(target=self._run, args=role, name="device", daemon=True) for role in roles]

    def warm(self, codec: Codec | None) -> None:
        """Run batches of all sizes before :meth:`start`: libraries and graphs are prepared for each shape. Without a
        codec only features are extracted. Batches become smaller where the device has no memory for them, as on a GPU
        that workers share.

        Raises:
            DeviceFull: there is no memory for a single image.
        """
        fitting = self._engine.warm(codec, self._batch_images)
        if fitting is None:
            return
        if not fitting:
            raise DeviceFull(
                "The device has no memory for a single image: stop what else uses it, let fewer workers share it "
                "(`aii up --workers N`), or use another one."
            )
        _free_memory()
        logger.warning("The device has memory for %d images at a time, not for %d", fitting, self._batch_images)
        self._batch_images = fitting

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Finish what was handed over, then end; later calls of :meth:`extract` and :meth:`activate` are refused."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        for thread in self._threads:
            thread.join()

    def check(self) -> None:
        """Raise NotReady unless the device's threads run."""
        if not all(thread.is_alive() for thread in self._threads):
            raise NotReady("A thread of the device is not running.")

    def extract(self, image: torch.Tensor, *, can_wait: bool = False) -> Features:
        """The feature (D,) float32 of one image (3, S, S) float32 in [0, 1]; waits for it.

        With `can_wait` it waits up to `max_extract_delay_s` for others to share a batch with, while the device runs
        activations: in a batch of four, a feature takes two thirds of its time alone.

        Raises:
            DeviceFailure: the extractor failed on this image.
            WorkerStopping: the device was stopped.
        """
        due = time.monotonic() + self._max_extract_delay_s if can_wait else 0.0
        return self._put(self._extractions, _Waiting(self._engine.pinned(image), due)).result()  # type: ignore[no-any-return]

    def extract_all(self, images: Sequence[torch.Tensor]) -> list[Features]:
        """The features of several such images, batched with all others that wait; errors as in :meth:`extract`."""
        waiting = [_Waiting(self._engine.pinned(image)) for image in images]
        return [future.result() for future in [self._put(self._extractions, one) for one in waiting]]

    def activate(self, work: Work) -> Activated:
        """Optimise one image; waits for it. Errors as in :meth:`extract`."""
        return self._put(self._activations, _Waiting(self._engine.staged(work))).result()  # type: ignore[no-any-return]

    def _put(self, queue: deque[_Waiting[_T]], waiting: _Waiting[_T]) -> Future[Any]:
        with self._wake:
            if self._stopping:
                raise WorkerStopping("This worker is stopping: the job is sent to another one.")
            queue.append(waiting)
            self._fair.note(waiting.client)
            self._wake.notify_all()
        return waiting.future

    # ── the threads themselves ───────────────────────────────────────────────────────────────────────────────────────

    def _run(self, extracts: bool, activates: bool) -> None:
        if not extracts:
            lower_priority()
        while self._wait_for_work(extracts, activates):
            try:
                self._serve(extracts, activates)
            except Exception:  # a bug: the images of this batch have no answer, and would wait for ever
                logger.critical("The device's thread failed", exc_info=True)
                self._on_broken_device()

    def _serve(self, extracts: bool, activates: bool) -> None:
        if extracts:
            self._serve_extractions()
        if activates and (batch := self._next_batch()):
            with self.busy.batch():
                self._halving(batch, self._optimise, batch[0].work.kind)
            self._end_batch()

    def _wait_for_work(self, extracts: bool, activates: bool) -> bool:
        """False when the thread is to end, which it does only once its queues are drained."""
        with self._wake:
            while not (extracts and self._due_in() == 0) and not (activates and self._activations):
                if self._stopping:
                    return False
                self._wake.wait(self._due_in() if extracts else None)
        return True

    def _due_in(self) -> float | None:
        """Seconds until a feature has to be extracted, 0 for now; None when none is wanted."""
        if not self._extractions:
            return None
        idle = not (self._optimising or self._activations)
        if idle or self._stopping or self._enough(len(self._extractions)):
            return 0
        return max(0, min(w.due for w in self._extractions) - time.monotonic())

    def _serve_extractions(self) -> None:
        """One batch only: a flood of queries slows activations down, but does not stop them."""
        with self._wake:
            most = self._ceilings.get(_EXTRACTION, _MAX_EXTRACT_BATCH)
            batch = self._taken(self._extractions, most) if self._due_in() == 0 else []
        if batch:
            with self.busy.batch():
                self._halving(batch, self._extract, _EXTRACTION)

    def _next_batch(self) -> list[_Waiting[Work]]:
        """The oldest waiting image and others of its kind. Waits a moment for more images, but not while an extraction
        waits for this thread."""
        deadline = time.monotonic() + self._max_batch_delay_s
        with self._wake:
            while self._activations and not self._enough(len(self._activations)):
                waited_for = self._stopping or (self._alternates and self._due_in() == 0)
                if waited_for or not self._wake.wait(deadline - time.monotonic()):
                    break
            if not self._activations:
                return []
            kind = self._activations[0].work.kind
            most = self._ceilings.get(kind, self._batch_images)
            batch = self._taken(self._activations, most, lambda w: w.work.kind == kind)
            self._optimising = True
        return batch

    def _enough(self, count: int) -> bool:
        """Whether a batch need not wait for more images than these."""
        return count >= self._batch_images or self._fair.limited()

    def _taken(
        self, queue: deque[_Waiting[_T]], most: int, fits: Callable[[_Waiting[_T]], bool] = lambda _: True
    ) -> list[_Waiting[_T]]:
        """The next batch out of a queue, of images that fit."""
        batch = self._fair.chosen((w for w in queue if fits(w)), most)
        for w in batch:
            queue.remove(w)
        return batch

    def _end_batch(self) -> None:
        """Wake the extractions that waited for images of this batch: unless the next one begins, none will come."""
        with self._wake:
            self._optimising = False
            self._wake.notify_all()

    def _extract(self, waiting: Sequence[_Waiting[torch.Tensor]]) -> None:
        features = self._engine.features(self._engine.together([w.work for w in waiting]))
        for w, feature in zip(waiting, features, strict=True):
            w.future.set_result(feature)

    def _optimise(self, waiting: Sequence[_Waiting[Work]]) -> None:
        """Run the engine to its end, serving extractions between steps where there is no other thread for them."""
        steps = self._engine.activate([w.work for w in waiting])
        while True:
            try:
                next(steps)
            except StopIteration as end:
                found: list[Activated] = end.value
                break
            if self._alternates:
                self._serve_extractions()
        for w, activated in zip(waiting, found, strict=True):
            w.future.set_result(activated)

    def _halving(
        self, batch: Sequence[_Waiting[_T]], run: Callable[[Sequence[_Waiting[_T]]], None], kind: Hashable
    ) -> None:
        """Run a batch; when it fails, run its halves, down to the single image, whose future then carries the error.

        That is the answer to one bad image and to a device that is out of memory alike. The halves run once the error
        is gone, since its traceback keeps every tensor of the failed batch alive; and what did not fit is remembered.
        """
        out_of_memory = False
        try:
            run(batch)
            return
        except torch.OutOfMemoryError:
            out_of_memory = True
        except Exception as error:
            if len(batch) == 1:
                self._fail(batch[0], error)
                return
            logger.warning("A batch of %d images failed (%s): halving it", len(batch), error)
        _free_memory()
        if out_of_memory and len(batch) == 1:
            self._try_again(batch[0], run)
            return
        middle = len(batch) // 2
        if out_of_memory:
            logger.warning("The device has no memory for %d images at a time: from now on %d", len(batch), middle)
            self._ceilings[kind] = middle
        for start in range(0, len(batch), max(1, middle)):
            self._halving(batch[start : start + max(1, middle)], run, kind)

    def _try_again(self, waiting: _Waiting[_T], run: Callable[[Sequence[_Waiting[_T]]], None]) -> None:
        """An image alone, with the memory of its batch freed: it must not be condemned for the others of its batch."""
        try:
            run([waiting])
        except torch.OutOfMemoryError:
            waiting.future.set_exception(DeviceFull("The device has no memory for a single image now."))
        except Exception as error:
            self._fail(waiting, error)

    def _fail(self, waiting: _Waiting[_T], error: Exception) -> None:
        """Fail the image, unless the device fails on a plain grey one as well: then the device is broken."""
        try:
            self._engine.features(torch.full((1, 3, self._input_size, self._input_size), 0.5))
        except Exception:
            logger.critical("The device no longer works (%s)", error, exc_info=error)
            self._on_broken_device()
        failure = error if isinstance(error, DeviceFailure) else DeviceFailure(f"{type(error).__name__}: {error}")
        waiting.future.set_exception(failure)


def _free_memory() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def end_process() -> None:
    """Leave at once, without closing any job: leases run out, and healthy workers get the jobs."""
    os._exit(70)
