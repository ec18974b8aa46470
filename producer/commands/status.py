"""``aii status``."""

from __future__ import annotations

import sys
import time
from typing import Final

import click

from tasks.command_line import EXIT_UNAVAILABLE, Command
from tasks.errors import Unavailable
from tasks.streams import is_terminal

__all__ = ["status"]

_WATCH_EVERY_S: Final = 2.0


@click.command(cls=Command)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--watch", is_flag=True, help="Fill the terminal and refresh every two seconds, until q or Ctrl-C.")
def status(as_json: bool, watch: bool) -> None:
    """Show services, workers, queues, speed beside the paper's, latest results and failures.

    In a terminal, --watch scrolls with the arrow keys and space, and sorts the workers with s.
    Ends with exit code 3 when Redis or S3 cannot be reached; with --watch it goes on, and says so.
    """
    from producer.status import collect_status  # noqa: PLC0415  # Redis' and the S3 client take long to import
    from producer.status_text import status_json, status_text  # noqa: PLC0415  # as above

    show = status_json if as_json else status_text
    if watch and not as_json and is_terminal(sys.stdout):
        from producer.status_watch import watch_in_terminal  # noqa: PLC0415  # for a terminal only

        watch_in_terminal(collect_status)
        return
    while watch:
        try:
            text = show(collect_status())
        except Unavailable as error:
            text = f"{error.message} [{error.code}]"
        click.clear()
        click.echo(text)
        time.sleep(_WATCH_EVERY_S)
    state = collect_status()
    click.echo(show(state))
    if state.s3_problem:
        sys.exit(EXIT_UNAVAILABLE)
