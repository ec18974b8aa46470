"""Metadata: read from a file as bytes, cleaned of what shows the unprotected original, and written again."""

from __future__ import annotations

from workers.images.metadata.blocks import (
    MANIFEST,
    MANIFEST_LOST,
    Blocks,
    Capacity,
    Density,
    Keep,
    Publishable,
)

__all__ = ["MANIFEST", "MANIFEST_LOST", "Blocks", "Capacity", "Density", "Keep", "Publishable"]
