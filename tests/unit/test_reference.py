"""What the READMEs promise about settings, errors and commands is true."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from producer.cli import aii
from tasks.errors import advice, kinds
from tasks.reference import README, error_table, setting_table, with_tables
from tasks.settings import Settings
from tasks.state_folder import OTHER_VARIABLES

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path for path in ROOT.rglob("*.md") if not any(part.startswith((".venv", ".git/")) for part in path.parts)
)


def commands_in(text: str) -> Iterator[str]:
    """The lines of code blocks, fenced or indented, that begin with `aii`; a line that ends with \\ goes on."""
    text = re.sub(r"\\\n\s*", "", text)
    for line in re.findall(r"^(?: {4}|\$ )?(?:[A-Z_]+=\S+ )*(aii(?: .*)?)$", text, re.MULTILINE):
        # What follows a comment sign or several spaces is a remark; `…` means more of the same.
        yield re.split(r"\s+[#|]|\s{2,}", line)[0].replace("…", "").strip()
    for command in re.findall(r"`((?:[A-Z_]+=\S+ )*aii(?: [^`\n]*)?)`", text):
        yield re.sub(r"^(?:[A-Z_]+=\S+ )*", "", command).replace("…", "").strip()


def parse(command: click.Command, words: list[str], parent: click.Context | None = None) -> None:
    """Parse a command line without running it; raises click's errors. Files need not exist, names need not be given."""
    for parameter in command.params:
        if isinstance(parameter.type, click.Path):
            parameter.type.exists = False
    if not isinstance(command, click.Group):
        command.make_context(command.name, words, parent=parent, resilient_parsing=False)
        return
    with click.Context(command, info_name=command.name, parent=parent) as context:
        rest = command.parse_args(context, words)
        if not rest:
            return
        _, child, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert child is not None
        parse(child, rest, context)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_of_a_document_parses(document: Path) -> None:
    for line in commands_in(document.read_text()):
        words = shlex.split(line)[1:]
        try:
            parse(aii, words)
        except click.MissingParameter:
            assert len(words) <= 2, f"{document}: {line}"  # named in a sentence, without its arguments
        except click.exceptions.NoArgsIsHelpError:
            pass
        except click.UsageError as error:
            pytest.fail(f"{document}: {line}: {error.format_message()}")


@pytest.mark.parametrize("line", ["aii activat x.jpg", "aii query x.jpg --topp 3", "aii index plan --images many"])
def test_a_command_that_does_not_exist_would_be_noticed(line: str) -> None:
    (found,) = commands_in(f"    {line}    with a remark\n")
    with pytest.raises(click.UsageError):
        parse(aii, shlex.split(found)[1:])


def names_of(command: click.Command, called: str) -> Iterator[tuple[str, str | None]]:
    """By what a command is called, and what its errors call it."""
    yield called, command.name
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from names_of(child, name)


def test_each_command_is_named_in_its_errors_as_it_is_called() -> None:
    assert [(called, name) for called, name in names_of(aii, "aii") if name != called] == []


def test_the_tables_of_settings_and_errors_are_those_of_the_code() -> None:
    text = README.read_text()
    assert with_tables(text) == text, "run `python -m tasks.reference`"


@pytest.mark.parametrize("name", [*(f"AII_{n.upper()}" for n in Settings.model_fields), *OTHER_VARIABLES])
def test_every_setting_is_described_in_the_table(name: str) -> None:
    (row,) = [line for line in setting_table().splitlines() if line.startswith(f"| `{name}` |")]
    assert len(row.split("|")[3].strip()) > 10


@pytest.mark.parametrize("kind", list(kinds()), ids=lambda kind: kind.__name__)
def test_every_error_says_when_it_is_raised_and_what_to_do(kind: Any) -> None:
    when, what_to_do = advice(kind)
    assert len(when) > 10
    assert len(what_to_do) > 10
    assert f"| `{kind.code}` | `{kind.__name__}` |" in error_table()


def test_secrets_have_no_default_in_the_table() -> None:
    assert "`AII_S3_SECRET_KEY` |  |" in setting_table()
