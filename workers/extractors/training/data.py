"""Training images, all of them in memory as squares of bytes."""

import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps

from workers.images.folders import image_files

__all__ = ["ImageSet", "Sampler", "held_out", "load_sets", "read_rgb"]

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


def held_out(index: int, every: int) -> bool:
    """Whether the image at this position of the sorted names is kept for measuring (``every`` = 0: none is)."""
    return every > 0 and index % every == 0


def read_rgb(data: bytes) -> Image.Image:
    """Decode one image upright, as RGB."""
    return ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")


def load_sets(paths: Sequence[Path], hold_out: int) -> list[ImageSet]:
    """One set for each path, without the held-out images.

    Only folders hold images out: tar files are the references among which the held-out photographs are searched.
    """
    sets = []
    for path in paths:
        names_and_bytes = list(image_files(path))
        every = hold_out if path.is_dir() else 0
        kept = [data for i, (_, data) in enumerate(names_and_bytes) if not held_out(i, every)]
        if not kept:
            raise ValueError(f"no images in {path}")
        sets.append(_to_set(kept))
        log.info("%s: %d images at side %d", path.name, len(kept), sets[-1].pixels.shape[-1])
    return sets


def _to_set(encoded: Sequence[bytes]) -> ImageSet:
    side = SMALL_SIDE if max(read_rgb(encoded[0]).size) < 2 * SMALL_SIDE else LARGE_SIDE
    pixels = torch.empty(len(encoded), 3, side, side, dtype=torch.uint8)
    aspects = torch.empty(len(encoded))
    for i, data in enumerate(encoded):
        image = read_rgb(data)
        aspects[i] = image.width / image.height
        square = image.resize((side, side), Image.Resampling.BILINEAR)
        pixels[i] = torch.from_numpy(np.array(square)).permute(2, 0, 1)
    return ImageSet(pixels, aspects)


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
        return ImageSet(torch.empty(0, 3, 1, 1, dtype=torch.uint8), torch.empty(0))
    return ImageSet(torch.cat([s.pixels for s in sets]), torch.cat([s.aspects for s in sets]))
