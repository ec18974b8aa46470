"""``aii index``: build collections, look at them, keep them up."""

from __future__ import annotations

import click

from workers.commands import index_build as cli_build
from workers.commands import index_upkeep as cli_upkeep

__all__ = ["index"]


@click.group()
def index() -> None:
    """Build collections, look at them, and keep them up."""


for _command in (
    cli_build.build,
    cli_build.plan,
    cli_build.info,
    cli_upkeep.remove,
    cli_upkeep.compact,
    cli_upkeep.rollback,
    cli_upkeep.repair,
    cli_upkeep.delete,
    cli_upkeep.verify,
    cli_upkeep.audit,
):
    index.add_command(_command)
