"""Images that end or stall their decoder, for workers that are prepared by :func:`install`.

No such image is known of Pillow; so it is made to: a picture 211 pixels wide ends the process that decodes it, and one
of 213 pixels never gets decoded.
"""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["crashing", "environment", "hanging", "install"]

_CRASHES, _HANGS = 211, 213
_HOOK = f"""
import os, signal, time
from PIL.ImageFile import ImageFile

def load(self, load=ImageFile.load):
    if self.size[0] == {_CRASHES}:
        os.kill(os.getpid(), signal.SIGSEGV)
    while self.size[0] == {_HANGS}:
        time.sleep(1)
    return load(self)

ImageFile.load = load
"""


def environment(folder: Path) -> dict[str, str]:
    """What a new process has to be started with."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(_HOOK)
    return {"PYTHONPATH": str(folder), "PYTHONFAULTHANDLER": ""}


def install(folder: Path) -> None:
    """The same for this process, and those that it starts."""
    os.environ |= environment(folder)
    exec(_HOOK, {})


def crashing(seed: int = 0) -> bytes:
    return _png(_CRASHES, seed)


def hanging(seed: int = 0) -> bytes:
    return _png(_HANGS, seed)


def _png(width: int, seed: int) -> bytes:
    data = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (64, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()
