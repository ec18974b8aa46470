"""The command ``aii demo``; torch and Pillow are imported when it runs, not when the command line is built."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from tasks.errors import AiiError, Unavailable


@click.command()
@click.option(
    "--images",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of photographs; default: those of scikit-image.",
)
@click.option(
    "--out",
    default="demo-report",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the report.",
)
def demo(images: Path | None, out: Path) -> None:
    """Activate photographs and query edited copies of them, unprotected and protected."""
    from deploy.demo.run import run  # noqa: PLC0415  # torch and Pillow take seconds to import

    try:
        failed = run(images, out)
    except AiiError as error:
        click.echo(f"aii demo: {error.message} [{error.code}]", err=True)
        sys.exit(3 if isinstance(error, Unavailable) else 1)
    sys.exit(1 if failed else 0)
