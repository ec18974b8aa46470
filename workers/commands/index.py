"""``aii index``: build, inspect and maintain collections."""

from __future__ import annotations

from typing import Final

import click

from tasks.command_line import Lazy, LazyGroup

__all__ = ["index"]

_BUILD: Final = "workers.commands.index_build"
_ASSETS: Final = "workers.commands.index_assets"
_UPKEEP: Final = "workers.commands.index_upkeep"
_TRANSFER: Final = "workers.commands.index_transfer"
_COMMANDS: Final = {
    "build": Lazy(f"{_BUILD}:build", "Build a collection from images."),
    "plan": Lazy("workers.commands.index_plan:plan", "Propose an index for an expected number of images."),
    "info": Lazy(f"{_BUILD}:info", "Show the state of a collection."),
    "make-starter": Lazy(f"{_BUILD}:make_starter", "Make the starter collection's files (for maintainers)."),
    "list": Lazy(f"{_ASSETS}:list_assets", "List the collections, or the assets of one."),
    "remove": Lazy(f"{_ASSETS}:remove", "Remove assets from a collection."),
    "purge": Lazy(f"{_ASSETS}:purge", "Delete files and documents that are not current any more."),
    "compact": Lazy(f"{_UPKEEP}:compact", "Merge the journal into the next generation."),
    "rollback": Lazy(f"{_UPKEEP}:rollback", "Return to an earlier generation."),
    "repair": Lazy(f"{_UPKEEP}:repair", "Re-register what Redis has lost, from the documents in S3."),
    "retrain": Lazy("workers.commands.index_retrain:retrain", "Train the index again, on what it holds now."),
    "delete": Lazy(f"{_UPKEEP}:delete", "Delete a collection."),
    "duplicates": Lazy(f"{_UPKEEP}:duplicates", "List the near-duplicates that the build found."),
    "verify": Lazy(f"{_UPKEEP}:verify", "Check a collection's files, and that its entries are found."),
    "export": Lazy(f"{_TRANSFER}:export", "Write a collection to a file, for another Redis and S3."),
    "import": Lazy(f"{_TRANSFER}:import_file", "Publish a collection that was exported."),
    "audit": Lazy(f"{_UPKEEP}:audit", "Count the images that would not fit another codec's codes."),
}


@click.group(cls=LazyGroup, lazy=_COMMANDS)
def index() -> None:
    """Build, inspect and maintain collections of images."""
