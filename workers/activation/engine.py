"""The engine: optimises batches of prepared images towards their codes and returns the changes."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F

from tasks.errors import DeviceFailure
from tasks.messages import ActivationOptions
from workers.activation.compose import PreparedImage, prepare
from workers.activation.objective import Objective
from workers.activation.optimiser import Optimised, Runner, optimise
from workers.activation.step import Batch, Schedule, forward
from workers.activation.views import mean_views
from workers.extractors.base import Extractor
from workers.index.codec.codec import Codec, Codes, Features
from workers.index.codec.target import Target

__all__ = ["BATCH_IMAGES", "Activated", "Engine", "Work", "always"]

# Most images optimised together, by the device's type. On a CPU larger batches fall out of its caches: ResNet-50 takes
# 226 ms for an image of four, 259 ms for one of eight, 487 ms for one of sixteen. An H100 takes 3.7 ms for ten steps of
# one of sixteen, 3.1 ms for one of 64: not worth four times the memory in each of the processes that share it.
BATCH_IMAGES: Final = {"cpu": 4, "cuda": 16}
# Of robust mode, where the options name neither steps nor a learning rate.
_ROBUST_STEPS: Final = 4
_DEFAULTS: Final = ActivationOptions()
# An image stops once a step brings less than this part of all that was gained. Measured on photographs kept out of
# training (IVF512,PQ8x8): all ten steps R@1 0.817 at 38.6 dB, a twentieth (3.0 steps) 0.821 at 38.9 dB, a tenth
# (2.2 steps) 0.829 at 39.1 dB; in another run a tenth 0.794 at 39.05 dB, a fifth (2.0 steps) 0.793 at 39.09 dB.
_SETTLED: Final = 0.2


def always() -> bool:
    """The `wanted` of a job that cannot be cancelled."""
    return True


@dataclass(frozen=True)
class Work:
    """One image to move onto its code under `codec`.

    A first try stops an image that gains little more. One that failed is followed by one of more `steps` than the
    options say, all of which are taken (`take_all_steps`). `wanted` is asked before every step: an image whose job has
    ended leaves its batch.
    """

    prepared: PreparedImage
    codec: Codec
    options: ActivationOptions
    steps: int
    take_all_steps: bool = False
    wanted: Callable[[], bool] = always

    @property
    def kind(self) -> Hashable:
        """Images of one kind can share a batch."""
        return id(self.codec), self.schedule

    @property
    def schedule(self) -> Schedule:
        robust = self.options.robust  # its views differ from step to step: nothing settles
        asked = self.options.learning_rate is not None or self.options.steps != _DEFAULTS.steps
        few = robust and not asked and not self.take_all_steps
        return Schedule(
            _ROBUST_STEPS if few else self.steps,
            self.options.effective_learning_rate,
            views=robust,
            settle=0.0 if robust or self.take_all_steps else _SETTLED,
        )


@dataclass(frozen=True)
class Activated:
    """What the engine found for one image.

    Attributes:
        change: (3, S, S) float32 in [-1, 1].
        code: (code_size,) uint8, of the original's feature; in robust mode, of the mean feature of edited views.
        target: what the code asks of a feature.
        feature: (D,) float32 of the original.
        steps: how many the optimiser took.
        device_ms: time the device spent on this image: that of its batch, divided by the images in it.
        batch_images: how many images were in that batch.
    """

    change: torch.Tensor
    code: Codes
    target: Target
    feature: Features
    steps: int
    device_ms: float
    batch_images: int


class Engine:
    """Runs on the extractor's device; of a GPU, one thread owns it."""

    def __init__(self, extractor: Extractor) -> None:
        self.extractor = extractor
        self._runner = Runner(extractor)

    def staged(self, work: Work) -> Work:
        """With its tensors :meth:`pinned`."""
        prepared = work.prepared
        image, mask = self.pinned(prepared.image), self.pinned(prepared.mask)
        return replace(work, prepared=replace(prepared, image=image, mask=mask))

    def pinned(self, values: torch.Tensor) -> torch.Tensor:
        """Where a GPU copies from without waiting. For threads that hand an image over: the GPU's own has no time."""
        return values.pin_memory() if self.extractor.device.type == "cuda" else values

    def together(self, parts: Sequence[torch.Tensor]) -> torch.Tensor:
        """(B, ...) on the device. A GPU gets every different part once, and waits for none that is pinned."""
        device = self.extractor.device
        if device.type == "cpu":
            return torch.stack(list(parts))
        different = {id(part): part for part in parts}
        copied = torch.empty(len(different), *parts[0].shape, device=device)
        for place, part in zip(copied, different.values(), strict=True):
            place.copy_(part, non_blocking=True)
        if len(different) == len(parts):
            return copied
        places = {key: place for place, key in enumerate(different)}
        return copied[torch.tensor([places[id(part)] for part in parts], device=device)]

    def features(self, images: torch.Tensor) -> Features:
        """(B, D) float32 of images (B, 3, S, S) in [0, 1]; raises DeviceFailure for values that are no numbers."""
        with torch.no_grad():
            return _checked(self.extractor(images.to(self.extractor.device)))

    def warm(self, codec: Codec | None, most: int) -> int | None:
        """Run batches of every usual size that :meth:`activate` makes, up to `most`, forwards and backwards.

        Returns:
            The largest size that the device has memory for (0: not even one image), or None when all sizes ran.
        """
        side, options = self.extractor.input_size, ActivationOptions()
        if self.extractor.device.type == "cpu":  # every size is one of its own
            most = min(most, BATCH_IMAGES["cpu"])
        grey = prepare(np.full((side, side, 3), 128, np.uint8), side, options.alpha)
        work = Work(grey, codec, options, options.steps) if codec else None
        ran = 0
        for size in sorted({self._runner.pace.size(count) for count in range(1, most + 1)}):
            try:
                self._run_once(grey, work, size)
            except torch.OutOfMemoryError:
                return ran
            ran = size
        return None

    def _run_once(self, image: PreparedImage, work: Work | None, size: int) -> None:
        """A batch of one image, `size` times: its features, and with `work` its activation."""
        self.features(image.image.expand(size, -1, -1, -1))
        for _ in self.activate([work] * size) if work else ():
            pass

    def activate(self, works: Sequence[Work]) -> Generator[None, None, list[Activated]]:
        """Optimise images of one kind together; yields once a step, and time between steps is not counted."""
        device, first = self.extractor.device, works[0]
        clock = _Clock()
        batch = Batch(
            images=self.together([w.prepared.image for w in works]),
            masks=self._masks([w.prepared for w in works]),
            rows=self.together([w.prepared.rows for w in works]),
            columns=self.together([w.prepared.columns for w in works]),
            aspects=torch.tensor([w.prepared.aspect for w in works], device=device),
            grey=torch.tensor([w.prepared.grey for w in works], device=device),
        )
        # The first forward pass leads the first step too, unless another form of the network does, or a captured step.
        shared = device.type == "cpu" and not self.extractor.half_guides
        first_pass = forward(self.extractor, batch) if shared else None
        features = _checked(first_pass.features) if first_pass else self.features(batch.images)
        codes = first.codec.encode(self._mean_features(batch) if first.options.robust else features)
        targets = [first.codec.target(code[None]) for code in codes]
        objective = Objective.of(Target.join(targets), device)
        wanted = lambda: [w.wanted() for w in works]  # noqa: E731  # asked before every step
        steps = optimise(self._runner, batch, objective, first.schedule, wanted, first_pass)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                found: Optimised = end.value
                changes, taken = _on_host(found.change), found.steps.tolist()
                break
            clock.stop()
            yield
            clock.start()
        clock.stop()
        each_ms = clock.total_ms / len(works)
        return [
            Activated(changes[i], codes[i], targets[i], features[i], taken[i], each_ms, len(works))
            for i in range(len(works))
        ]

    def _masks(self, images: Sequence[PreparedImage]) -> torch.Tensor:
        """(B, 3, S, S); one channel of it goes to the device."""
        weights = torch.tensor([image.weights for image in images], device=self.extractor.device)
        return self.together([image.mask for image in images]) * weights[:, :, None, None]

    def _mean_features(self, batch: Batch) -> Features:
        """(B, D), of norm 1: the middle of what edited copies look like."""
        with torch.no_grad():
            total = sum(self.extractor(view) for view in mean_views(batch.images, batch.aspects))
        mean: Features = F.normalize(torch.as_tensor(total), dim=1).cpu().numpy()
        return mean


def _on_host(values: torch.Tensor) -> torch.Tensor:
    """From a GPU into pinned memory, which takes a twentieth of the time."""
    if not values.is_cuda:
        return values
    return torch.empty(values.shape, pin_memory=True).copy_(values)


def _checked(features: torch.Tensor) -> Features:
    """On the host; raises DeviceFailure for values that are no numbers."""
    found: Features = features.detach().cpu().numpy()
    if not np.isfinite(found).all():
        raise DeviceFailure("The extractor gave a feature that is not a number for this image.")
    return found


class _Clock:
    """Adds up the time between start and stop; runs from the beginning."""

    def __init__(self) -> None:
        self.total_ms = 0.0
        self.start()

    def start(self) -> None:
        self._started = time.perf_counter()

    def stop(self) -> None:
        self.total_ms += (time.perf_counter() - self._started) * 1000
