"""``aii serve`` and ``aii tokens``: the HTTP gateway, and who may use it.

The gateway itself is in :mod:`producer.gateway`, which is imported when it is served.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tasks.command_line import Command, Group

if TYPE_CHECKING:
    from producer.gateway.tokens import Scope, Token, TokenFile

__all__ = ["serve", "tokens"]

_SCOPES = ("submit", "query", "remove", "admin")


@click.command(cls=Command)
def serve() -> None:
    """Serve the HTTP gateway, at AII_GATEWAY_ADDRESS and AII_GATEWAY_PORT, until SIGTERM or Ctrl-C.

    Its OpenAPI document is at /openapi.json. Every request needs a token of `aii tokens add`. It speaks HTTP without
    TLS: put a proxy that ends TLS before it where others can reach it.
    """
    try:
        from producer.gateway.serve import serve as run  # noqa: PLC0415  # its libraries take long to import
    except ModuleNotFoundError as error:
        raise click.UsageError(
            f"`aii serve` needs the module {error.name}, which is not installed: "
            "pip install 'active-image-indexing[gateway]'."
        ) from error
    run()


@click.group(cls=Group)
def tokens() -> None:
    """Make, list and remove tokens of the HTTP gateway. A running gateway notices at once."""


@tokens.command()
@click.argument("name")
@click.option(
    "--scope", "scopes", multiple=True, required=True, type=click.Choice(_SCOPES), help="Repeatable; admin is all."
)
@click.option("--collection", "collections", multiple=True, help="Only for this collection. Repeatable; default: all.")
@click.option("--rate", default="", help="Requests at most, such as 50/second or 6000/hour; default: no limit.")
@click.option(
    "--open", "open_jobs", default=0, type=click.IntRange(0), help="Jobs that may be open at a time; default: no limit."
)
def add(name: str, scopes: tuple[Scope, ...], collections: tuple[str, ...], rate: str, open_jobs: int) -> None:
    """Make a token and print it. It is shown this once: only its digest is kept, in AII_GATEWAY_TOKEN_FILE."""
    click.echo(_file().add(name, scopes, collections=collections, rate=rate, open_jobs=open_jobs))


@tokens.command("list")
def list_() -> None:
    """List tokens: name, scopes, collections, rate, open jobs, when they were made; separated by tabs."""
    for token in _file().read():
        collections = ",".join(sorted(token.collections)) or "all collections"
        row = (
            token.name,
            ",".join(sorted(token.scopes)),
            collections,
            token.rate or "any rate",
            _open(token),
            token.created_at,
        )
        click.echo("\t".join(row))


def _open(token: Token) -> str:
    return f"{token.open_jobs} open jobs" if token.open_jobs else "any number of jobs"


@tokens.command()
@click.argument("name")
def remove(name: str) -> None:
    """Remove a token: it is refused from then on."""
    _file().remove(name)


def _file() -> TokenFile:
    from producer.gateway.tokens import TokenFile, token_file  # noqa: PLC0415
    from tasks.settings import load_settings  # noqa: PLC0415

    return TokenFile(token_file(load_settings()))
