"""From a decoded image to a protected file that is verified: the handler thread's side of an activation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from tasks.errors import LeaseLost
from tasks.messages import ActivationOptions
from workers.activation.compose import PreparedImage, compose, prepare
from workers.activation.engine import Activated, Work, always
from workers.activation.quality import psnr_db
from workers.activation.verification import CodeFit, is_verified
from workers.device.device import Device
from workers.images import DecodedImage, EncodedImage, Limits, decode, encode
from workers.images.tensors import to_input
from workers.index.codec.codec import Codec
from workers.monitoring.stopwatch import Stopwatch

__all__ = ["Protected", "Protector"]

# A change that the file format swallowed gets more steps; each attempt doubles them.
_ATTEMPTS: Final = 3
# A change that is too visible is weakened; each time by what is missing to the floor, which JPEG's rounding can deny.
_WEAKENINGS: Final = 6


@dataclass(frozen=True)
class Protected:
    """An encoded image, decoded again, and what it took: how many attempts, and steps in all of them."""

    encoded: EncodedImage
    decoded: DecodedImage
    before: CodeFit
    after: CodeFit
    verified: bool
    attempts: int = 0
    steps: int = 0


class Protector:
    """Thread-safe; the device does the work for many images at once."""

    def __init__(self, device: Device, input_size: int, limits: Limits) -> None:
        self._device = device
        self._input_size = input_size
        self._limits = limits

    def protect(
        self,
        original: DecodedImage,
        options: ActivationOptions,
        codec: Codec,
        watch: Stopwatch,
        wanted: Callable[[], bool] = always,
    ) -> tuple[Activated, Protected]:
        """Change the image until its *file* is verified; after the last attempt, give the picture back unchanged.

        Raises:
            LeaseLost: the job is no longer this worker's; `wanted` is asked between the steps of the optimiser.
        """
        if options.kept_metadata == "none":
            original = original.without_profile()
        with watch.stage("prepare"):
            prepared = prepare(original.pixels, self._input_size, options.alpha, options.attenuation)
        work, attempts, steps = Work(prepared, codec, options, options.steps, wanted=wanted), 0, 0
        for _ in range(_ATTEMPTS):
            with watch.stage("device"):
                found = self._device.activate(work)
            if not wanted():
                raise LeaseLost("The job is no longer this worker's: it was cancelled, or its lease ran out.")
            watch.add("optimise", found.device_ms)
            attempts, steps = attempts + 1, steps + found.steps
            protected = self._publish(original, prepared, found, work, watch)
            if protected.verified:
                break
            work = replace(work, steps=2 * work.steps, take_all_steps=True)
        else:
            protected = self._passive(original, found, work, watch)
        return found, replace(protected, attempts=attempts, steps=steps)

    def _publish(
        self, original: DecodedImage, prepared: PreparedImage, found: Activated, work: Work, watch: Stopwatch
    ) -> Protected:
        """Compose and encode, weaker and weaker until the file keeps the floor, and verify the file."""
        floor, strength = work.options.min_psnr_db, 1.0
        for _ in range(_WEAKENINGS):
            with watch.stage("compose"):
                pixels = compose(original.own_pixels, prepared, found.change, strength)
            encoded, decoded = self._encoded(pixels, original, work, watch)
            missing = max(0.0, floor - psnr_db(original.pixels, decoded.pixels)) if floor else 0.0
            if not missing:
                break
            strength *= 10 ** (-(missing + 0.05) / 20)
        before = CodeFit.of(found.feature, found.code, found.target, work.codec)
        with watch.stage("verify"):
            after = self._fit(decoded, found, work.codec)
        good = not missing and is_verified(before, after)
        return Protected(encoded, decoded, before, after, good)

    def _passive(self, original: DecodedImage, found: Activated, work: Work, watch: Stopwatch) -> Protected:
        encoded, decoded = self._encoded(original.own_pixels, original, work, watch)
        with watch.stage("verify"):
            after = self._fit(decoded, found, work.codec)
        before = CodeFit.of(found.feature, found.code, found.target, work.codec)
        return Protected(encoded, decoded, before, after, verified=False)

    def _encoded(
        self, pixels: np.ndarray, original: DecodedImage, work: Work, watch: Stopwatch
    ) -> tuple[EncodedImage, DecodedImage]:
        with watch.stage("encode"):
            encoded = encode(pixels, original, keep=work.options.kept_metadata)
        with watch.stage("verify"):
            return encoded, decode(encoded.data, self._limits)

    def _fit(self, image: DecodedImage, found: Activated, codec: Codec) -> CodeFit:
        """How an image fits its code, when a query extracts it."""
        feature = self._device.extract(to_input(image.pixels, self._input_size), can_wait=True)
        return CodeFit.of(feature, found.code, found.target, codec)
