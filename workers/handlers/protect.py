"""From a decoded image to a protected file that is verified: the handler thread's side of an activation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tasks.errors import LeaseLost, UnsupportedFormat
from tasks.messages import ActivationOptions
from workers.activation.compose import PreparedImage, compose, prepare
from workers.activation.engine import Activated, Work, always
from workers.activation.quality import kept_share, psnr_db
from workers.activation.verification import CodeFit, is_verified
from workers.device.device import Device
from workers.images import DecodedImage, EncodedImage, Limits, decode, encode
from workers.images.coding import Coding
from workers.images.model import Samples
from workers.images.tensors import to_input
from workers.index.codec.codec import Codec
from workers.monitoring.stopwatch import Stopwatch

__all__ = ["Protected", "Protector"]

# A change that the file format swallowed gets more steps; each attempt doubles them.
_ATTEMPTS: Final = 3
# A change that is too visible is weakened; each time by what is missing to the floor, which JPEG's rounding can deny.
_WEAKENINGS: Final = 6

# What coarse compression takes from the change is added beforehand, once: mostly blue, of which 4:2:0 keeps the half.
# Measured on 100 photographs of 384 pixels, JPEG 75 and 4:2:0: R@1 0.802 at 40.5 dB without, 0.834 at 39.2 dB at
# quality 95 and 4:4:4. On larger images the change is so smooth that nothing is lost.
_ALL_KEPT: Final = 0.97
_MOST_COMPENSATION: Final = 1.2
_COMPENSATED_PIXELS: Final = 2_000_000
# How much a JPEG keeps is estimated from every fourth band of as many rows as a block of 4:2:0 has. On 25 photographs
# of 512² (quality 75 to 95, 4:2:0) the files are at most 0.14 dB from those by all rows, 0.002 dB on average.
_BAND_ROWS: Final = 16
_BANDS_FOR_ONE: Final = 4
_LEAST_ROWS: Final = 256  # of fewer, four bands or less would be all that is seen of the image


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


@dataclass(frozen=True)
class _Draft:
    """An original, and the change that was found for it."""

    original: DecodedImage
    prepared: PreparedImage
    found: Activated
    work: Work


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
        coding = _coding_of(original, options)
        with watch.stage("prepare"):
            prepared = prepare(
                original.pixels,
                self._input_size,
                options.alpha,
                options.attenuation,
                grey=original.is_grey,
            )
        work, attempts, steps = Work(prepared, codec, options, options.steps, wanted=wanted), 0, 0
        for _ in range(_ATTEMPTS):
            with watch.stage("device"):
                found = self._device.activate(work)
            if not wanted():
                raise LeaseLost("The job is no longer this worker's: it was cancelled, or its lease ran out.")
            watch.add("optimise", found.device_ms)
            attempts, steps = attempts + 1, steps + found.steps
            protected = self._publish(_Draft(original, prepared, found, work), coding, watch)
            if protected.verified:
                break
            work = replace(work, steps=2 * work.steps, take_all_steps=True)
        else:
            protected = self._passive(_Draft(original, prepared, found, work), coding, watch)
        return found, replace(protected, attempts=attempts, steps=steps)

    def _publish(self, draft: _Draft, coding: Coding, watch: Stopwatch) -> Protected:
        """Compress as the source is compressed, and finer and finer until the file is verified."""
        protected = self._above_floor(draft, coding, watch)
        while not protected.verified and (finer := coding.finer()) is not None:
            coding = finer
            protected = self._above_floor(draft, coding, watch)
        return protected

    def _above_floor(self, draft: _Draft, coding: Coding, watch: Stopwatch) -> Protected:
        """Compose and encode, weaker and weaker until the file keeps the floor, and verify the file."""
        floor = draft.work.options.min_psnr_db
        strength = self._compensation(draft, coding, watch)
        for _ in range(_WEAKENINGS):
            with watch.stage("compose"):
                samples = _composed(draft, strength)
            encoded, decoded = self._encoded(samples, draft, coding, watch)
            missing = max(0.0, floor - psnr_db(draft.original.pixels, decoded.pixels)) if floor else 0.0
            if not missing:
                break
            strength *= 10 ** (-(missing + 0.05) / 20)
        before, after = self._fits(draft, decoded, watch)
        good = not missing and is_verified(before, after)
        return Protected(encoded, decoded, before, after, good)

    def _compensation(self, draft: _Draft, coding: Coding, watch: Stopwatch) -> float:
        """By what a change is multiplied so that the file keeps most of it; estimated from a part of the rows."""
        height, width = draft.original.samples.shape[:2]
        if not coding.is_lossy or height * width > _COMPENSATED_PIXELS:
            return 1.0
        # In a WebP, blocks are predicted from those above them, which in a band are others.
        bands = _estimating_bands(height) if coding.format == "JPEG" else [slice(0, height)]
        part = replace(draft, original=draft.original.of_rows(bands))
        with watch.stage("compose"):
            samples = _composed(draft, 1.0, bands)
        _, decoded = self._encoded(samples, part, coding, watch)
        with watch.stage("verify"):
            inside = _inside(bands)
            kept = kept_share(part.original.samples[inside], samples[inside], decoded.samples[inside])
        return 1 / max(kept, 1 / _MOST_COMPENSATION) if kept < _ALL_KEPT else 1.0

    def _passive(self, draft: _Draft, coding: Coding, watch: Stopwatch) -> Protected:
        encoded, decoded = self._encoded(draft.original.samples, draft, coding, watch)
        before, after = self._fits(draft, decoded, watch)
        return Protected(encoded, decoded, before, after, verified=False)

    def _encoded(
        self, samples: Samples, draft: _Draft, coding: Coding, watch: Stopwatch
    ) -> tuple[EncodedImage, DecodedImage]:
        with watch.stage("encode"):
            encoded = encode(samples, draft.original, coding=coding, keep=draft.work.options.kept_metadata)
        with watch.stage("verify"):
            return encoded, decode(encoded.data, self._limits)

    def _fits(self, draft: _Draft, image: DecodedImage, watch: Stopwatch) -> tuple[CodeFit, CodeFit]:
        """Of the original, and of the image as a query for it will see it."""
        found, codec = draft.found, draft.work.codec
        with watch.stage("verify"):
            feature = self._device.extract(to_input(image.pixels, self._input_size), can_wait=True)
            return (
                CodeFit.of(found.feature, found.code, found.target, codec),
                CodeFit.of(feature, found.code, found.target, codec),
            )


def _composed(draft: _Draft, strength: float, bands: Sequence[slice] | None = None) -> Samples:
    original = draft.original
    return compose(original.samples, draft.prepared, draft.found.change, strength, original.tone, bands)


def _estimating_bands(height: int) -> list[slice]:
    """Every fourth band of an image, or all of a low one."""
    if height < _LEAST_ROWS:
        return [slice(0, height)]
    bands = [slice(top, min(top + _BAND_ROWS, height)) for top in range(0, height, _BAND_ROWS)]
    return bands[2::_BANDS_FOR_ONE]


def _inside(bands: Sequence[slice]) -> NDArray[np.intp]:
    """The rows of bands that lie one below the other, but for each band's first and last: 4:2:0 mixes their colours
    with the next band's, which would look like a loss."""
    edges = np.cumsum([0, *(band.stop - band.start for band in bands)])
    return np.concatenate([np.arange(first + 1, end - 1) for first, end in pairwise(edges)])


def _coding_of(original: DecodedImage, options: ActivationOptions) -> Coding:
    """Raises UnsupportedFormat where the picture cannot be published so."""
    coding = original.coding.lossless() if options.lossless else original.coding
    if options.quality is not None and not options.lossless:
        coding = coding.of_quality(options.quality)
    if original.samples.ndim == 3 and original.samples.shape[2] == 4 and coding.format != "JPEG":
        raise UnsupportedFormat(
            "CMYK is published as JPEG only. Send a CMYK JPEG, and without `lossless`, or convert the image to RGB."
        )
    return coding
