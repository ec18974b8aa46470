"""Training images, all of them in memory as squares of bytes."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from tasks.errors import BadInput, InvalidRequest
from workers.images import Limits, decode
from workers.images.folders import ImageFile, listed_images
from workers.images.model import Pixels

__all__ = ["ImageSet", "Sampler", "held_out", "load_sets", "readable"]

log = logging.getLogger(__name__)

SMALL_SIDE = 64  # sets of thumbnails are kept at this side,
LARGE_SIDE = 176  # sets of photographs at this one: twice what most of the training sees, so that crops stay sharp


@dataclass(frozen=True)
class ImageSet:
    """Images of one source.

    Attributes:
        pixels: (N, 3, side, side) uint8, RGB, squashed to a square.
        aspects: (N,) float32, width over height before squashing.
    """

    pixels: torch.Tensor
    aspects: torch.Tensor

    def __len__(self) -> int:
        return len(self.pixels)


_NO_IMAGES: Final = ImageSet(torch.empty(0, 3, 1, 1, dtype=torch.uint8), torch.empty(0))


def held_out(index: int, every: int) -> bool:
    """Whether the image at this position of the sorted names is kept for measuring (``every`` = 0: none is)."""
    return every > 0 and index % every == 0


def readable(files: Iterable[ImageFile], limits: Limits) -> Iterator[Pixels]:
    """The pixels of each file, (H, W, 3) uint8, as a worker sees them; a file that cannot be decoded is logged."""
    for file in files:
        try:
            yield decode(file.read(), limits).pixels
        except BadInput as error:
            log.warning("%s is left out: %s", file.name, error.message)


def load_sets(paths: Sequence[Path], hold_out: int, limits: Limits) -> list[ImageSet]:
    """One set for each path, without the held-out images.

    Only folders hold images out: tar files are the references among which the held-out photographs are searched.

    Raises:
        InvalidRequest: there is no image that can be read in one of the paths.
    """
    sets = []
    for path in paths:
        every = hold_out if path.is_dir() else 0
        kept = [file for i, file in enumerate(listed_images(path)) if not held_out(i, every)]
        images = _to_set(readable(kept, limits), len(kept))
        if not len(images):
            raise InvalidRequest(f"There is no image that can be read in {path}: name another folder.")
        sets.append(images)
        log.info("%s: %d images at side %d", path.name, len(images), images.pixels.shape[-1])
    return sets


def _to_set(images: Iterator[Pixels], at_most: int) -> ImageSet:
    """Squares of up to `at_most` images; the first one decides whether they are thumbnails or photographs."""
    first = next(images, None)
    if first is None:
        return _NO_IMAGES
    side = SMALL_SIDE if max(first.shape) < 2 * SMALL_SIDE else LARGE_SIDE
    pixels = torch.empty(at_most, 3, side, side, dtype=torch.uint8)
    aspects: list[float] = []
    for image in chain([first], images):
        square = Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR)
        pixels[len(aspects)] = torch.from_numpy(np.array(square)).permute(2, 0, 1)
        aspects.append(image.shape[1] / image.shape[0])
    return ImageSet(pixels[: len(aspects)], torch.tensor(aspects))


class Sampler:
    """Draws batches: a fixed share of photographs, the rest thumbnails, nothing twice within a batch.

    Args:
        sets: what to draw from.
        large_share: part of each batch that comes from sets of photographs, oversampling them.
    """

    def __init__(self, sets: Sequence[ImageSet], large_share: float, generator: torch.Generator) -> None:
        large = [s for s in sets if s.pixels.shape[-1] == LARGE_SIDE]
        small = [s for s in sets if s.pixels.shape[-1] == SMALL_SIDE]
        self.sources = tuple(sets)
        self.share = large_share if large and small else float(bool(large))
        self.pools = [_merged(group) for group in (large, small)]
        self.generator = generator

    def draw(self, batch: int, side: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Images (B, 3, side, side) float32 in [0, 1], aspects (B,), and the identity of each (B,) int64."""
        wanted = round(batch * self.share)
        images, aspects, ids, first_id = [], [], [], 0
        for pool, count in zip(self.pools, (wanted, batch - wanted), strict=True):
            if count > 0:
                chosen = torch.randperm(len(pool), generator=self.generator)[:count]
                pixels = pool.pixels[chosen].float().div_(255.0)
                images.append(F.interpolate(pixels, (side, side), mode="bilinear", antialias=True))
                aspects.append(pool.aspects[chosen])
                ids.append(chosen + first_id)
            first_id += len(pool)
        return torch.cat(images), torch.cat(aspects), torch.cat(ids)


def _merged(sets: Sequence[ImageSet]) -> ImageSet:
    if not sets:
        return _NO_IMAGES
    return ImageSet(torch.cat([s.pixels for s in sets]), torch.cat([s.aspects for s in sets]))
