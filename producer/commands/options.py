"""Options that several commands take."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click

from tasks.command_line import FiniteRange
from tasks.names import META_KEY_PATTERN, VIEWS

__all__ = ["collection_option", "metadata_option", "query_options"]

collection_option = click.option(
    "--collection", help="Collection to use; default: AII_DEFAULT_COLLECTION, or `starter`."
)


def metadata_option(option: str, name: str, explanation: str) -> Callable[..., Any]:
    """A repeatable option KEY=VALUE, as a dictionary."""

    def parse(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
        pairs = [text.partition("=") for text in given]
        if bad := [key for key, equals, _ in pairs if not equals or not re.fullmatch(META_KEY_PATTERN, key)]:
            raise click.BadParameter(f"{bad[0]!r} is no KEY=VALUE with a key of letters, digits, '.', '_' or '-'.")
        values = {key: value for key, _, value in pairs}
        if twice := [key for key, _, value in pairs if values[key] != value]:
            raise click.BadParameter(f"{twice[0]!r} is given two values.")
        return values

    return click.option(option, name, multiple=True, metavar="KEY=VALUE", callback=parse, help=explanation)


def _views(_: click.Context, __: click.Parameter, value: str) -> tuple[str, ...]:
    """Names of views, by commas."""
    views = tuple(name.strip() for name in value.split(",") if name.strip())
    if unknown := [name for name in views if name not in VIEWS]:
        raise click.BadParameter(f"{unknown[0]!r} is no view: choose from {', '.join(VIEWS)}.")
    return tuple(dict.fromkeys(views))


def _one_criterion(ctx: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
    """A verdict rests on a rate or on a distance."""
    other = "threshold" if parameter.name == "fpr" else "fpr"
    if value is not None and ctx.params.get(other) is not None:
        raise click.UsageError("--fpr and --threshold exclude each other: give a rate, or a distance.")
    return value


def query_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """One command-line option for each field of :class:`tasks.messages.QueryOptions`, by the field's name."""
    options = (
        click.option(
            "--top", "top_k", default=5, show_default=True, type=click.IntRange(1, 100), help="Matches to return."
        ),
        click.option(
            "--fpr", type=FiniteRange(0, 1, min_open=True, max_open=True), callback=_one_criterion,
            help="Share of unrelated images that may match; default: the collection's.",
        ),
        click.option(
            "--threshold", type=FiniteRange(0), callback=_one_criterion,
            help="Distance up to which the first match counts; default: calibrated.",
        ),
        click.option(
            "--views", callback=_views, default="", metavar="mirror,rotations",
            help="Ask for the mirrored and the turned image too.",
        ),
        click.option(
            "--nprobe", type=click.IntRange(1, 65536),
            help="Cells of the index to search; default: the collection's, usually 16.",
        ),
        metadata_option("--where", "where", "Only assets with this metadata (repeatable)."),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command
