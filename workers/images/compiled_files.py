"""The folder of compiled kernels: one for each kind of processor, and for its owner only."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import math
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Final

import llvmlite.binding
import numba

from tasks.errors import InvalidSetting
from tasks.state_folder import state_dir

__all__ = ["KernelFiles", "cache_folder", "locked"]

logger = logging.getLogger(__name__)

_FOLDER: Final = "compiled"
_PATIENCE_S: Final = 60  # a kernel is compiled in one to four
_LOOKS_EVERY_S: Final = 0.05
_SHARED_SOURCES: Final = ("compiled.py", "kernel_parts.py")  # parts of kernels of other files


@cache
def cache_folder() -> Path | None:
    """Where compiled code is kept, for this kind of processor; None where nothing can be written.

    What is written there runs in this process: only its owner may write. Numba's own index tells processors apart
    too, but two kinds that write at once to a folder that they share overwrite each other's code.
    """
    try:
        folder = Path(numba.config.CACHE_DIR or state_dir() / _FOLDER) / _kind_of_code()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (found := folder.stat()).st_uid != os.geteuid() or found.st_mode & 0o022:
            raise PermissionError(f"{folder} belongs to another account, or others can write there")
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except (OSError, InvalidSetting) as error:
        logger.warning("Kernels are compiled at each start, as nothing can be kept: %s", error)
        return None


def _kind_of_code() -> str:
    """A digest of what machine code depends on besides the file of its kernel, and of whose it is: accounts that share
    a state folder one after the other each have their own."""
    cpu = llvmlite.binding.get_host_cpu_name(), llvmlite.binding.get_host_cpu_features().flatten()
    shared = [Path(__file__).with_name(name).read_bytes() for name in _SHARED_SOURCES]
    return hashlib.sha256(repr((numba.__version__, cpu, shared, os.geteuid())).encode()).hexdigest()[:16]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time: the others wait, and load what the first has compiled."""
    with (folder / "lock").open("a") as file:
        _lock(file, folder)  # until the file is closed, or the process ends
        yield


def _lock(file: IO[str], folder: Path) -> None:
    warn_at = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(_LOOKS_EVERY_S)
        if time.monotonic() > warn_at:
            logger.warning("Another process has held %s for %d s: if it is stopped, end it", folder, _PATIENCE_S)
            warn_at = math.inf


class KernelFiles:
    """What numba keeps of one kernel in its folder, and a digest of it: numba looks for no damage, and damaged machine
    code would end each worker that starts."""

    def __init__(self, folder: Path, kernel: str) -> None:
        self._folder, self._kernel = folder, kernel
        self._digest_file = folder / f"{kernel}.sha256"

    def are_whole(self) -> bool:
        """Also where there are none."""
        files = self._files()
        with suppress(FileNotFoundError):
            return self._digest_file.read_text() == _digest(files)
        return not files

    def seal(self) -> None:
        """Take them for whole from now on."""
        unfinished = self._digest_file.with_suffix(".tmp")
        unfinished.write_text(_digest(self._files()))
        unfinished.replace(self._digest_file)

    def remove(self) -> None:
        for file in [*self._files(), self._digest_file]:
            with suppress(OSError):
                file.unlink()

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob(f"{self._kernel}-*.nb[ic]"))  # index and code


def _digest(files: list[Path]) -> str:
    total = hashlib.sha256()
    for file in files:
        total.update(hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()
