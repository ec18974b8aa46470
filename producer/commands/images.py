"""``aii activate`` and ``aii query``: what they take. How they run is in :mod:`producer.run`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from producer.commands.options import collection_option, metadata_option, query_options
from tasks.command_line import Command, FilePath, FiniteRange, PathText
from tasks.output_files import force_option

if TYPE_CHECKING:
    from producer.asset_ids import AssetIdFrom

__all__ = ["activate", "query"]

_WAITING: Final = ("timeout_s", "services_s", "no_wait", "as_json")


_images = click.argument(
    "images", nargs=-1, required=True, metavar="IMAGE|FOLDER|-...",
    type=PathText(readable=False),  # one that cannot be read is its own failure
)  # fmt: skip
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object per image, one a line.")
_waiting = (
    click.option(
        "--timeout",
        "timeout_s",
        type=FiniteRange(min=0),
        help="Seconds to wait for all results; default: no limit.",
    ),
    click.option("--no-wait", is_flag=True, help="Submit, print the jobs' ids, and end: see `aii jobs wait`."),
    click.option(
        "--wait-for-services",
        "services_s",
        type=FiniteRange(0, 86_400),
        metavar="SECONDS",
        help="Wait so long for Redis or S3 to come back; default: 60, or --timeout if less; 0 at the start.",
    ),
)


def _waits(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of how long a command waits."""
    for option in reversed(_waiting):
        command = option(command)
    return command


def _activation_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """One command-line option for each field of :class:`tasks.messages.ActivationOptions`, by the field's name."""
    options = (
        click.option(
            "--steps", default=10, show_default=True, type=click.IntRange(1, 200), help="Of the optimiser; 1 is fast."
        ),
        click.option(
            "--learning-rate",
            type=FiniteRange(0, 100, min_open=True),
            help="Of the optimiser; default: 10 / steps.",
        ),
        click.option(
            "--alpha",
            default=3.0,
            show_default=True,
            type=FiniteRange(0, 20, min_open=True),
            help="How strong the change may be; with linf, in grey levels.",
        ),
        click.option(
            "--attenuation",
            default="jnd",
            show_default=True,
            type=click.Choice(["jnd", "linf"]),
            help="Hide the change where the eye misses it, or bound it alike everywhere.",
        ),
        click.option(
            "--min-psnr", "min_psnr_db", type=FiniteRange(20, 80), help="Floor in dB that every file has to keep."
        ),
        click.option(
            "--robust", is_flag=True, help="Optimise for edited copies: finds more, in three to four times the time."
        ),
        click.option(
            "--metadata",
            default="all",
            show_default=True,
            type=click.Choice(["all", "rights", "none"]),
            help="Publish all EXIF, IPTC and XMP; only whose image it is, without places; or none, in sRGB.",
        ),
        click.option(
            "--quality",
            type=click.IntRange(1, 100),
            help="Of published JPEG and WebP files; default: the source's own.",
        ),
        click.option("--lossless", is_flag=True, help="Publish a JPEG as PNG, and a WebP without loss."),
        click.option("--strip-metadata", is_flag=True, help="The same as --metadata none."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command(cls=Command)
@_images
@collection_option
@click.option("--asset-id", help="Name of the asset, for a single image; default: the sha256 of its bytes.")
@click.option(
    "--asset-id-from",
    "ids_from",
    default="digest",
    show_default=True,
    type=click.Choice(["digest", "name", "path"]),
    help="Name assets by their bytes, their files' names, or their paths below FOLDER.",
)
@_activation_options
@metadata_option("--meta", "meta", "Metadata of the asset (repeatable).")
@click.option("--again", is_flag=True, help="Activate even if the same request was made before.")
@click.option("--replace", is_flag=True, help="Let an image take the place of another one under the same asset id.")
@click.option("--out", type=FilePath(file_okay=False), help="Folder for the protected images and their manifest.")
@click.option(
    "--card", is_flag=True,
    help="Measure how well edited copies of each image are found, before and after: a page beside each protected file.",
)  # fmt: skip
@force_option
@_waits
@_json
def activate(
    images: tuple[str, ...], ids_from: AssetIdFrom, out: Path | None, card: bool, force: bool, **chosen: Any
) -> None:
    """Protect images and register them, so that edited copies can be found again.

    IMAGE is a JPEG, PNG, WebP, TIFF, GIF, AVIF or HEIC file; a FOLDER is searched with all below it, for files that are
    images by their content; - reads one image from standard input. Protected and hidden files, and those in --out, are
    left out.
    """
    if out and chosen["no_wait"]:
        raise click.UsageError("--no-wait does not wait for the files of --out: fetch them with `aii jobs download`.")
    if chosen["quality"] and chosen["lossless"]:
        raise click.UsageError("--quality and --lossless exclude each other: a lossless file has no quality.")
    if card and chosen["no_wait"]:
        raise click.UsageError("--no-wait does not wait for what --card measures.")
    if card and not (out or chosen["as_json"]):
        raise click.UsageError("--card writes a page beside each protected file: name a folder with --out, or --json.")
    from producer import run  # noqa: PLC0415  # Celery and the S3 client take long to import
    from producer.session import Wanted  # noqa: PLC0415

    waiting = {name: chosen.pop(name) for name in _WAITING}
    wanted = Wanted(folder=out, force=force, card=card, **waiting)
    run.activate(run.find(images, out=out, originals=True), wanted, ids_from, chosen)


@click.command(cls=Command)
@_images
@collection_option
@query_options
@click.option("--csv", "csv_path", type=FilePath(dir_okay=False), help="File for a table of all matches.")
@click.option("--html", "html_path", type=FilePath(dir_okay=False), help="File for a page that shows them.")
@click.option(
    "--evidence", "evidence_path", type=FilePath(file_okay=False),
    help="Folder for a page on each query: both images, the score's meaning, jobs and digests.",
)  # fmt: skip
@force_option
@_waits
@_json
def query(images: tuple[str, ...], collection: str | None, **options: Any) -> None:
    """Find the registered images that these are copies of."""
    reports = {name.removesuffix("_path"): options.pop(name) for name in ("csv_path", "html_path", "evidence_path")}
    if reports["evidence"] and options["no_wait"]:
        raise click.UsageError("--no-wait does not wait for the answers that --evidence shows.")
    from producer import run  # noqa: PLC0415  # as above
    from producer.session import Reports, Wanted  # noqa: PLC0415

    wanted = Wanted(**{name: options.pop(name) for name in (*_WAITING, "force")})
    run.query(run.find(images), wanted, collection, Reports(**reports), options)
