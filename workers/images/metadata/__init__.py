"""Metadata: read from a file as bytes, cleaned of what shows the unprotected original, and written again."""

from __future__ import annotations

from workers.images.metadata.blocks import Blocks, Capacity, Density, Keep, Publishable

__all__ = ["Blocks", "Capacity", "Density", "Keep", "Publishable"]
