"""Kernels: what they take, and the folder of compiled code as processes find it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from workers.images.tensors import luminance

# Doubles numbers in a kernel, prints them, and those of a child that it forks.
PROGRAM = """
import logging, os, sys
import numpy as np
from numba import float32, uint8, void
from workers.images.compiled import array, compiled, load_kernels

@compiled(*(void(array(kind, 1), array(float32, 1, written=True)) for kind in (uint8, float32)))
def doubled(values, result):
    for i in range(len(values)):
        result[i] = 2 * values[i]

def show():
    result = np.empty(3, np.float32)
    doubled(np.arange(3, dtype=np.uint8), result)
    doubled(result.copy(), result)
    print(*result.astype(int).tolist(), flush=True)

logging.basicConfig()
load_kernels()
show()
if not (child := os.fork()):
    show()
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
RIGHT = "0 4 8\n" * 2


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts PROGRAM with a state folder, in its own process."""
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)

    def start(state: Path) -> subprocess.Popen[str]:
        others = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
        environment = others | {"AII_STATE_DIR": str(state), "PYTHONPATH": str(Path(__file__).parents[2])}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([sys.executable, file], env=environment, text=True, **pipes)  # type: ignore[call-overload, no-any-return]

    return start


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    return stdout, stderr


def files(state: Path) -> dict[Path, int]:
    """Those of compiled code, and when they were written."""
    return {file: file.stat().st_mtime_ns for file in state.rglob("*") if file.is_file()}


def test_processes_that_start_at_once_compile_and_later_ones_load(
    program: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    state = tmp_path / "state"
    assert [ended(process) for process in [program(state) for _ in range(3)]] == [(RIGHT, "")] * 3
    written = files(state)
    assert sorted(file.suffix for file in written) == ["", ".nbc", ".nbc", ".nbi", ".sha256"]  # "" is the lock
    assert ended(program(state)) == (RIGHT, "")
    assert files(state) == written


def test_compiled_code_that_others_could_have_written_is_not_used(
    program: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    state = tmp_path / "state"
    ended(program(state))
    (folder,) = (state / "compiled").iterdir()
    assert folder.stat().st_mode & 0o077 == 0
    folder.chmod(0o770)
    stdout, stderr = ended(program(state))
    assert stdout == RIGHT
    assert "others can write there" in stderr


def cut_off(content: bytes) -> bytes:
    """As a loss of power leaves it."""
    return content[: len(content) // 2] + bytes(len(content) - len(content) // 2)


def decayed(content: bytes) -> bytes:
    """One bit in each thousand bytes, in the machine code too."""
    return bytes(byte ^ (i % 1_000 == 999) for i, byte in enumerate(content))


@pytest.mark.parametrize(("suffix", "damage"), [(".nbi", cut_off), (".nbc", cut_off), (".nbc", decayed)])
def test_damaged_files_are_replaced(
    program: Callable[..., subprocess.Popen[str]], tmp_path: Path, suffix: str, damage: Callable[[bytes], bytes]
) -> None:
    state = tmp_path / "state"
    ended(program(state))
    damaged = [file for file in files(state) if file.suffix == suffix]
    for file in damaged:
        file.write_bytes(damage(file.read_bytes()))
    stdout, stderr = ended(program(state))
    assert stdout == RIGHT
    assert "is damaged, and compiled anew" in stderr
    assert ended(program(state)) == (RIGHT, "")


def test_a_folder_that_cannot_be_written_stops_nobody(
    program: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    state = tmp_path / "state"
    state.write_text("no folder")
    stdout, stderr = ended(program(state))
    assert stdout == RIGHT
    assert "nothing can be kept" in stderr
    assert files(tmp_path).keys() == {state, tmp_path / "program.py"}


def test_what_kernels_do_not_take_is_refused_and_not_compiled() -> None:
    with pytest.raises(ValueError, match="uint8"):
        luminance(np.zeros((4, 4, 3), np.float32))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="of one size"):
        luminance(np.zeros((4, 4), np.uint8))


def test_producers_services_and_decoders_load_no_numba() -> None:
    modules = (
        "producer.cli",
        "producer.gateway.app",
        "deploy.flower.__main__",
        "deploy.local.run",
        "workers.images.decode",
    )
    code = f"import sys, {', '.join(modules)}; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
