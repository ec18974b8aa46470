"""What platforms do to every upload, before anyone can copy it: protected files recompressed or scaled down."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Final

from PIL import Image

from workers.images.edits import EDITS, Edit

__all__ = ["AS_IT_IS", "RELEASES", "ReleaseRow", "released"]

AS_IT_IS: Final = "as it is"


@dataclass(frozen=True)
class ReleaseRow:
    """R@1 over the fourteen edits at nprobe 1, where what is copied was released so; intervals are over photographs.

    Passive images are recompressed alike, so that the difference is the activation's.
    """

    release: str
    images: int
    passive: float
    passive_low: float
    passive_high: float
    activated: float
    activated_low: float
    activated_high: float


def _encoded(image: Image.Image, seed: int, *, kind: str, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, quality=quality)
    return Image.open(buffer, formats=(kind,)).convert("RGB")


def _halved(image: Image.Image, seed: int) -> Image.Image:
    size = (max(1, image.width // 2), max(1, image.height // 2))
    return _encoded(image.resize(size, Image.Resampling.LANCZOS), seed, kind="JPEG", quality=85)


RELEASES: Mapping[str, Edit] = MappingProxyType(
    {
        **{f"JPEG {q}": partial(_encoded, kind="JPEG", quality=q) for q in (95, 85, 75, 60)},
        "WebP 80": partial(_encoded, kind="WEBP", quality=80),
        "half size, JPEG 85": _halved,
    }
)


def released(release: Edit) -> dict[str, Edit]:
    """The fourteen edits of what was released so."""
    return {name: partial(_edited, release=release, edit=edit) for name, edit in EDITS.items()}


def _edited(image: Image.Image, seed: int, *, release: Edit, edit: Edit) -> Image.Image:
    return edit(release(image, seed), seed)
