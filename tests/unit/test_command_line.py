"""The command line without any service: what it imports, how it ends, and that it never shows a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from producer.cli import aii
from tasks.command_line import EXIT_FAILED, EXIT_UNAVAILABLE, EXIT_USAGE, Command, echo, exit_code, one_line
from tasks.errors import AiiError, InvalidRequest, Unavailable, kinds
from tasks.messages import QueryOptions, validated
from tests.stack import aii as run

HEAVY = (
    "torch",
    "torchvision",
    "faiss",
    "numpy",
    "numba",
    "PIL",
    "matplotlib",
    "celery",
    "redis",
    "obstore",
    "pydantic",
)


def program(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `aii` in a process that says at its end which heavy modules it has imported."""
    code = (
        "import atexit, sys\n"
        f"atexit.register(lambda: print('HEAVY', *(m for m in {HEAVY!r} if m in sys.modules), file=sys.stderr))\n"
        "from producer.cli import aii\n"
        "aii(prog_name='aii')"
    )
    given = given_to(tmp_path) | environment
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], env=given, capture_output=True, text=True, check=False
    )


def forked(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The same where it does not matter what is imported."""
    return run(given_to(tmp_path) | environment, *arguments)


def given_to(state: Path) -> dict[str, str]:
    """The environment of a command without settings."""
    return {k: v for k, v in os.environ.items() if not k.startswith("AII_")} | {"AII_STATE_DIR": str(state)}


@pytest.mark.parametrize(
    "arguments", [[], ["--help"], ["--version"], ["actvate"], ["index"], ["index", "--help"], ["jobs"], ["query"]]
)
def test_help_and_mistyped_commands_import_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    assert program(tmp_path, *arguments).stderr.splitlines()[-1] == "HEAVY"


def test_ctrl_c_while_the_command_line_is_imported_leaves_no_traceback(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'click': os.kill(os.getpid(), signal.SIGINT)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "from producer.__main__ import main\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], env=given_to(tmp_path), capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")


@pytest.mark.parametrize(
    ("words", "expected"), [("aii act", "activate"), ("aii index re", "repair"), ("aii activate --rob", "--robust")]
)
def test_completion_answers_without_importing_anything_heavy(words: str, expected: str, tmp_path: Path) -> None:
    environment = {"_AII_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = program(tmp_path, **environment)
    assert f"plain,{expected}" in done.stdout.splitlines()
    assert done.stderr.splitlines()[-1] == "HEAVY"


def test_every_command_of_another_package_has_a_summary_that_needs_no_import() -> None:
    with click.Context(aii) as context:
        for point in entry_points(group="aii.commands"):
            assert (point.name, type(aii.get_command(context, point.name)).__name__) == (point.name, "_Stub")


def test_every_command_shows_its_own_help_and_its_errors_begin_with_its_name() -> None:
    def visit(command: click.Command, path: list[str]) -> None:
        assert command.name == (path or ["aii"])[-1]
        done = CliRunner().invoke(aii, [*path, "--help"])
        assert (path, done.exit_code) == (path, 0), done.output
        if isinstance(command, click.Group):
            with click.Context(command) as context:
                for name in command.list_commands(context):
                    child = command.resolve_command(context, [name])[1]
                    assert child is not None
                    visit(child, [*path, name])

    visit(aii, [])


@pytest.mark.parametrize(
    "command",
    [
        ["status"], ["jobs", "list"], ["jobs", "cancel", "0" * 32], ["activate", __file__], ["query", __file__], ["up"],
        ["worker"], ["demo"], ["index", "info", "any"], ["index", "compact", "any"],
    ],
)  # fmt: skip
def test_a_setting_that_cannot_be_used_is_wrong_usage_for_every_command(command: list[str], tmp_path: Path) -> None:
    done = forked(tmp_path, *command, AII_LEASE_S="abc")
    assert (done.returncode, "AII_LEASE_S" in done.stderr) == (EXIT_USAGE, True), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "value", ["nonsense", "http://127.0.0.1:6379", "redis://:secret@127.0.0.1:port/0", "redis://:secret@"]
)
def test_an_address_of_redis_that_is_none_is_refused_without_its_password(value: str, tmp_path: Path) -> None:
    done = forked(tmp_path, "status", AII_REDIS_URL=value)
    assert (done.returncode, "AII_REDIS_URL" in done.stderr, "secret" in done.stderr) == (EXIT_USAGE, True, False)


@pytest.mark.parametrize("value", ["http://127.0.0.1:9000/path", "no where", "host:port", ""])
def test_an_address_of_s3_that_is_none_is_refused(value: str, tmp_path: Path) -> None:
    done = forked(tmp_path, "index", "info", "any", AII_S3_ENDPOINT=value)
    assert (done.returncode, "AII_S3_ENDPOINT" in done.stderr) == (EXIT_USAGE, True)


def test_more_metadata_than_an_asset_can_have_is_refused_without_a_traceback() -> None:
    with pytest.raises(InvalidRequest, match="where"):
        validated(QueryOptions, {"where": {f"key{i}": "value" for i in range(17)}})


@pytest.mark.parametrize("command", [["status"], ["jobs", "list"], ["activate", __file__]])
def test_a_service_that_is_away_has_an_exit_code_of_its_own(command: list[str], tmp_path: Path) -> None:
    away = {"AII_REDIS_URL": "redis://127.0.0.1:1/0", "AII_S3_ENDPOINT": "127.0.0.1:1"}
    done = forked(tmp_path, *command, **away)
    assert (done.returncode, "[redis_unavailable]" in done.stderr) == (EXIT_UNAVAILABLE, True), done.stderr


def test_every_error_of_the_tree_has_an_exit_code_that_the_help_names() -> None:
    for kind in kinds():
        expected = EXIT_UNAVAILABLE if issubclass(kind, Unavailable) else EXIT_FAILED
        assert exit_code(kind("…")) == (EXIT_USAGE if kind.code == "invalid_setting" else expected), kind


@pytest.mark.parametrize(
    ("problem", "said", "code"),
    [
        (AiiError("It is broken: mend it."), "aii broken: It is broken: mend it. [internal]\n", EXIT_FAILED),
        (FileNotFoundError(2, "No such file", "/a"), "aii broken: /a: No such file [not_found]\n", EXIT_FAILED),
        (PermissionError(13, "Denied", "/a"), "aii broken: /a: Denied [disk_unavailable]\n", EXIT_UNAVAILABLE),
        (TypeError("surprise"), "aii broken: unexpected TypeError: surprise.", EXIT_FAILED),
    ],
)
def test_a_command_that_fails_says_so_in_one_line(problem: Exception, said: str, code: int) -> None:
    @click.command(cls=Command)
    def broken() -> None:
        raise problem

    done = CliRunner().invoke(broken)
    assert (done.exit_code, done.stderr.startswith(said), done.stderr.count("\n")) == (code, True, 1)


def test_names_cannot_command_a_terminal_or_break_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert one_line("a\x1b[31m\n\u202eb\udce9.jpg") == "a\\x1b[31m\\n\\u202eb\\udce9.jpg"
    echo("first\nsecond\x1b[2J \N{HORIZONTAL ELLIPSIS}")
    assert capsys.readouterr().out == "first\nsecond\\x1b[2J \N{HORIZONTAL ELLIPSIS}\n"
