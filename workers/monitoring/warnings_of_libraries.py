"""Warnings of libraries that say nothing to an operator."""

from __future__ import annotations

import warnings

from celery.exceptions import CPendingDeprecationWarning

__all__ = ["silence_libraries"]


def silence_libraries() -> None:
    """In this process, for good."""
    # Damaged EXIF makes Pillow warn in thousands of different words, each of which Python would remember for ever.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    # Issued at every lost connection, about a default to come: our jobs end by themselves, and the ledger knows them.
    warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)
