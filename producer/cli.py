"""``aii``, the command line.

Commands are imported when they are run, so that help and completion answer at once. Those of the other packages (`up`,
`worker`, …) come from the entry points ``aii.commands``: this package imports none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from importlib.metadata import entry_points
from typing import Any, Final

import click

from tasks.command_line import Lazy, LazyGroup

__all__ = ["aii"]

_OWN: Final = {
    "activate": Lazy("producer.commands.images:activate", "Protect images and register them."),
    "query": Lazy("producer.commands.images:query", "Find the registered images that these are copies of."),
    "explain": Lazy("producer.commands.answers:explain", "Explain why a query finds an asset, or does not."),
    "lookup": Lazy("producer.commands.answers:lookup", "Find what is registered near feature vectors."),
    "feedback": Lazy("producer.commands.answers:feedback", "Confirm or reject what a query found."),
    "status": Lazy("producer.commands.status:status", "Show services, workers, queues, speed and failures."),
    "serve": Lazy("producer.commands.gateway:serve", "Serve the HTTP gateway."),
    "tokens": Lazy("producer.commands.gateway:tokens", "Make, list and remove tokens of the HTTP gateway."),
    "hooks": Lazy("producer.commands.hooks:hooks", "Send the ends of jobs to a URL, as signed webhooks."),
    "ingest": Lazy("producer.commands.ingest:ingest", "Submit the objects of a bucket as they appear."),
    "takedown": Lazy("producer.commands.audit:takedown", "Remove all assets that an image is in."),
    "audit": Lazy("producer.commands.audit:audit", "Show who submitted, looked up and removed what."),
    "jobs": Lazy("producer.commands.jobs:jobs", "List jobs, wait for them, fetch their files, retry and cancel them."),
}
# Of commands from entry points, which know only a name; others are imported for their own.
_SUMMARIES: Final = {
    "buckets": "Make and check the buckets of the store.",
    "demo": "Protect photographs, edit them, and compare what is found.",
    "evaluate": "Measure on your own images what activation gains.",
    "extractor": "Train an extractor, and measure one.",
    "index": "Build, inspect and maintain collections.",
    "up": "Start Redis, S3, workers and Flower on this machine.",
    "worker": "Run a worker.",
}


class _Program(LazyGroup):
    @cached_property
    def _commands(self) -> dict[str, Lazy]:
        points = entry_points(group="aii.commands")
        return {point.name: Lazy(point.value, _SUMMARIES.get(point.name, "")) for point in points} | _OWN

    def lazy(self) -> Mapping[str, Lazy]:
        return self._commands

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        known = self.lazy().get(cmd_name)
        return self.load(cmd_name) if known and not known.summary else super().get_command(ctx, cmd_name)

    def load(self, name: str) -> click.Command:
        try:
            return super().load(name)
        except ModuleNotFoundError as error:
            return _not_installed(name, str(error.name))


def _not_installed(name: str, module: str) -> click.Command:
    @click.command(name, help="(needs another part of the package)", context_settings={"ignore_unknown_options": True})
    @click.argument("rest", nargs=-1)
    def explain(rest: tuple[str, ...]) -> None:
        raise click.UsageError(
            f"`aii {name}` needs the module {module}, which is not installed: "
            "pip install 'active-image-indexing[worker,local,monitor,gateway]'."
        )

    return explain


@click.group(cls=_Program, lazy=_OWN)
@click.version_option(package_name="active-image-indexing")
def aii(**_: Any) -> None:
    """Protect images before you publish them, and find their edited copies again.

    Exit codes: 0 all went well, 1 something failed, 2 wrong usage or settings, 3 a service cannot be reached.
    """
