"""Commands whose streams are closed, or full, end with a code and no traceback."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from producer.cli import aii
from tests.stack import AII

AWAY = {"AII_REDIS_URL": "redis://127.0.0.1:1/0", "AII_S3_ENDPOINT": "127.0.0.1:1"}


def in_a_shell(tmp_path: Path, streams: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line, with streams as a shell redirects them."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {streams}', "sh", *AII, *arguments],
        env=AWAY | {"AII_STATE_DIR": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("command", [["query", "-"], ["lookup", "-"], ["explain", "-", "any"], ["jobs", "wait", "-"]])
@pytest.mark.parametrize(("streams", "said"), [("<&-", "is closed"), ("0>/dev/null", "cannot be read")])
def test_standard_input_that_cannot_be_read_is_told_with_a_code(
    command: list[str], streams: str, said: str, tmp_path: Path
) -> None:
    done = in_a_shell(tmp_path, streams, *command)
    assert (done.returncode, said in done.stderr, "[not_found]" in done.stderr) == (1, True, True), done.stderr


def test_what_cannot_be_confirmed_is_wrong_usage() -> None:
    program = "from tasks.streams import confirm; import click; click.command()(lambda: confirm('Sure?'))()"
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", AII[0], "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, "say --yes" in done.stderr) == (2, True), done.stderr


def test_a_full_standard_output_is_a_full_disk(tmp_path: Path) -> None:
    done = in_a_shell(tmp_path, ">/dev/full", "buckets", "policies", str(tmp_path / "out"))
    expected = "aii buckets policies: standard output: No space left on device [disk_unavailable]\n"
    assert (done.returncode, done.stderr) == (3, expected)


def test_closed_streams_are_no_bug(tmp_path: Path) -> None:
    assert in_a_shell(tmp_path, "<&- >&-", "buckets", "policies", str(tmp_path / "out")).returncode == 0
    away = in_a_shell(tmp_path, "<&- >&- 2>/dev/full", "jobs", "list")
    assert (away.returncode, away.stderr) == (3, "")


@pytest.mark.parametrize("name", ["nothere.npy", "."])
def test_vectors_that_cannot_be_read_are_a_file_that_is_not_there(name: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(aii, ["lookup", str(tmp_path / name)], env=AWAY)
    assert (done.exit_code, "cannot be read" in done.stderr, "[not_found]" in done.stderr) == (1, True, True)


@pytest.mark.parametrize("option", ["--resend", "--drop"])
@pytest.mark.parametrize("entry", ["zz", "1-", "-", "\u0661-\u0662", "9" * 30 + "-1"])
def test_what_is_no_name_of_a_dead_letter_is_not_there(option: str, entry: str) -> None:
    done = CliRunner().invoke(aii, ["jobs", "dead", option, entry], env=AWAY)
    assert (done.exit_code, "There is no dead letter" in done.stderr) == (1, True), done.stderr
