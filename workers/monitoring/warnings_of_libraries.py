"""Warnings of libraries that say nothing to an operator."""

from __future__ import annotations

import warnings

__all__ = ["silence_libraries"]


def silence_libraries() -> None:
    """In this process, for good."""
    # Damaged EXIF makes Pillow warn in thousands of different words, each of which Python would remember for ever.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
