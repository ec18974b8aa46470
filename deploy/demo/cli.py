"""The command ``aii demo``; torch and Pillow are imported when it runs, not when the command line is built."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from tasks.command_line import EXIT_FAILED, Command, FilePath
from tasks.output_files import force_option


@click.command(cls=Command)
@click.option(
    "--images",
    type=FilePath(exists=True, file_okay=False),
    help="Folder of photographs; default: those of scikit-image.",
)
@click.option(
    "--out",
    default="demo-report",
    show_default=True,
    type=FilePath(file_okay=False),
    help="Folder for the report.",
)
@force_option
def demo(images: Path | None, out: Path, force: bool) -> None:
    """Activate photographs and query edited copies of them, unprotected and protected."""
    from deploy.demo.run import run  # noqa: PLC0415  # torch and Pillow take seconds to import

    if run(images, out, force=force):
        sys.exit(EXIT_FAILED)
