"""The local copies of collections' files, which all processes of a machine share."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

__all__ = ["prune"]

_UNUSED_S: Final = 7 * 86_400
_HALF_DONE_S: Final = 3_600


def prune(cache: Path) -> None:
    """Delete copies that nobody opened for a week, and downloads that ended halfway. A file that is mapped all the same
    stays readable for who maps it, and is fetched again when it is opened next."""
    now = time.time()
    for path in cache.glob("*") if cache.exists() else ():
        kept_s = _HALF_DONE_S if path.name.startswith(".part-") else _UNUSED_S
        try:
            if path.is_file() and now - path.stat().st_mtime > kept_s:
                path.unlink()
        except FileNotFoundError:
            continue  # another process was faster
