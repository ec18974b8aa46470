"""``aii hooks``: webhooks for the ends of jobs. What they do is in :mod:`producer.hooks`, imported when one runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from tasks.command_line import Group
from tasks.ledger.states import JobState

if TYPE_CHECKING:
    from producer.hooks.deliveries import Deliveries
    from producer.hooks.registry import Hooks

__all__ = ["hooks"]

_STATES = [state.value for state in JobState if state.closed]


@click.group(cls=Group)
def hooks() -> None:
    """Send the ends of jobs to a URL as signed webhooks, and see what became of them."""


@hooks.command()
@click.argument("url")
@click.option(
    "--state", "states", multiple=True, type=click.Choice(_STATES), help="Only of jobs that end so. Repeatable."
)
def add(url: str, states: tuple[str, ...]) -> None:
    """Add a hook and print its id and its secret, separated by a tab.

    Every message is a CloudEvent in JSON, signed with the secret as Standard Webhooks says: verify it with one of that
    project's libraries. `aii hooks run` delivers; `aii up` starts it when there is a hook.
    """
    hook = _hooks().add(url, [JobState(state) for state in states])
    click.echo(f"{hook.hook_id}\t{hook.secret.get_secret_value()}")


@hooks.command("list")
@click.option("--deliveries", "which", type=click.Choice(["pending", "done", "failed"]), help="List these instead.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 10_000))
def list_(which: Literal["pending", "done", "failed"] | None, limit: int) -> None:
    """List hooks (id, URL without its login, states), and how many deliveries are pending, done and failed.

    With --deliveries, list those: id, attempts, what came of the last one; separated by tabs.
    """
    if which:
        for delivery in _deliveries().listed(which, limit):
            click.echo(f"{delivery.delivery_id}\t{delivery.attempts}\t{delivery.answer or 'not tried yet'}")
        return
    for hook in _hooks().all():
        click.echo(f"{hook.hook_id}\t{hook.shown_url}\t{','.join(sorted(hook.states)) or 'all ends'}")
    counts = ", ".join(f"{count} {name}" for name, count in _deliveries().counts().items())
    click.echo(f"Deliveries: {counts}.", err=True)


@hooks.command()
@click.argument("hook_id", metavar="HOOK")
def remove(hook_id: str) -> None:
    """Remove a hook; what is pending for it is dropped."""
    _hooks().remove(hook_id)


@hooks.command()
@click.argument("delivery_ids", nargs=-1, metavar="DELIVERY...")
@click.option("--failed", is_flag=True, help="All that were given up.")
def resend(delivery_ids: tuple[str, ...], failed: bool) -> None:
    """Send deliveries again, those that were done or given up, under the same id."""
    if bool(delivery_ids) is failed:
        raise click.UsageError("Name deliveries, or say --failed.")
    deliveries = _deliveries()
    chosen = [one.delivery_id for one in deliveries.listed("failed", 10_000)] if failed else delivery_ids
    for delivery_id in chosen:
        deliveries.resend(delivery_id)
    click.echo(f"{len(chosen)} deliveries are sent again.", err=True)


@hooks.command()
def run() -> None:
    """Deliver until SIGTERM or Ctrl-C. Several may run at the same time."""
    try:
        from producer.hooks.deliver import run as deliver  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise click.UsageError(
            f"`aii hooks run` needs the module {error.name}, which is not installed: "
            "pip install 'active-image-indexing[gateway]'."
        ) from error
    from tasks.settings import load_settings  # noqa: PLC0415

    deliver(load_settings())


def _hooks() -> Hooks:
    from producer.hooks.registry import Hooks  # noqa: PLC0415
    from tasks.connection import connect_redis  # noqa: PLC0415
    from tasks.settings import load_settings  # noqa: PLC0415

    return Hooks(connect_redis(load_settings()))


def _deliveries() -> Deliveries:
    from producer.hooks.deliveries import Deliveries  # noqa: PLC0415
    from tasks.connection import connect_redis  # noqa: PLC0415
    from tasks.settings import load_settings  # noqa: PLC0415

    return Deliveries(connect_redis(load_settings()))
