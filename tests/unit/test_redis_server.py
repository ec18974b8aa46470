"""Which Redis is started on which data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deploy.local.redis_server import choose_server
from tasks.errors import Unavailable


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder where programs are found, and no package brings one."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/bin")
    monkeypatch.setattr("deploy.local.redis_server._bundled", lambda: iter(()))
    return folder


def install(folder: Path, program: str, says: str) -> None:
    file = folder / program
    file.write_text(f"#!/bin/sh\necho '{says}'\n")
    file.chmod(0o755)


def write_data(folder: Path, header: bytes) -> Path:
    """Data as a server of version 7 or newer leaves them."""
    files = folder / "appendonlydir"
    files.mkdir(parents=True)
    (files / "appendonly.aof.1.base.rdb").write_bytes(header + b"\xff" + bytes(8))
    return folder


def test_the_package_brings_a_server_that_is_taken_for_new_data(tmp_path: Path) -> None:
    server = choose_server(tmp_path)
    assert (server.name, server.bundled, server.version >= (9, 1, 2)) == ("valkey", True, True)
    assert str(server).startswith("valkey 9.")


def test_valkey_is_taken_before_redis(path: Path, tmp_path: Path) -> None:
    install(path, "valkey-server", "Valkey server v=9.1.2 sha=00000000:1")
    install(path, "redis-server", "Redis server v=8.6.0 sha=00000000:1")
    assert choose_server(tmp_path).name == "valkey"


@pytest.mark.parametrize(
    ("header", "expected"), [(b"REDIS0011", "valkey"), (b"REDIS0012", "redis"), (b"VALKEY080", "valkey")]
)
def test_data_go_to_a_server_that_reads_their_format(path: Path, tmp_path: Path, header: bytes, expected: str) -> None:
    install(path, "valkey-server", "Valkey server v=9.1.2")
    install(path, "redis-server", "Redis server v=8.6.0")
    assert choose_server(write_data(tmp_path / "redis", header)).name == expected


@pytest.mark.parametrize("header", [b"REDIS0009", b"REDIS0010"])
def test_data_of_a_newer_server_are_not_given_to_an_older_one_which_would_overlook_them(
    path: Path, tmp_path: Path, header: bytes
) -> None:
    install(path, "redis-server", "Redis server v=6.2.14")
    with pytest.raises(Unavailable, match=r"valkey or redis 7 or newer is needed, and there is only redis 6\.2\.14"):
        choose_server(write_data(tmp_path / "redis", header))


def test_data_of_valkey_are_not_given_to_redis(path: Path, tmp_path: Path) -> None:
    install(path, "redis-server", "Redis server v=8.6.0")
    with pytest.raises(Unavailable, match=r"valkey 9 or newer is needed.*nothing was changed"):
        choose_server(write_data(tmp_path / "redis", b"VALKEY080"))


def test_programs_that_are_no_server_are_passed_over(path: Path, tmp_path: Path) -> None:
    install(path, "redis-server", "something else")
    with pytest.raises(Unavailable, match=r"No redis-server or valkey-server was found"):
        choose_server(tmp_path)
