"""``aii activate`` and ``aii query``: what they take. How they run is in :mod:`producer.run`."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tasks.command_line import Command
from tasks.names import META_KEY_PATTERN

__all__ = ["activate", "query"]

_images = click.argument("images", nargs=-1, required=True, metavar="IMAGE|FOLDER|-...")
_collection = click.option("--collection", help="Collection to use; default: AII_DEFAULT_COLLECTION, or `starter`.")
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object per image, one a line.")
_timeout = click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=0), help="Seconds to wait for all results; default: no limit."
)


def _metadata(option: str, name: str, explanation: str) -> Callable[..., Any]:
    """A repeatable option KEY=VALUE, as a dictionary."""

    def parse(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
        pairs = [text.partition("=") for text in given]
        if bad := [key for key, equals, _ in pairs if not equals or not re.fullmatch(META_KEY_PATTERN, key)]:
            raise click.BadParameter(f"{bad[0]!r} is no KEY=VALUE with a key of letters, digits, '.', '_' or '-'.")
        return {key: value for key, _, value in pairs}

    return click.option(option, name, multiple=True, metavar="KEY=VALUE", callback=parse, help=explanation)


def _activation_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """One command-line option for each field of :class:`tasks.messages.ActivationOptions`, by the field's name."""
    options = (
        click.option(
            "--steps", default=10, show_default=True, type=click.IntRange(1, 200), help="Of the optimiser; 1 is fast."
        ),
        click.option(
            "--learning-rate",
            type=click.FloatRange(0, 100, min_open=True),
            help="Of the optimiser; default: 10 / steps.",
        ),
        click.option(
            "--alpha",
            default=3.0,
            show_default=True,
            type=click.FloatRange(0, 20, min_open=True),
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
            "--min-psnr", "min_psnr_db", type=click.FloatRange(20, 80), help="Floor in dB that every file has to keep."
        ),
        click.option(
            "--robust", is_flag=True, help="Optimise for edited copies: finds more, in about fourteen times the time."
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
@_collection
@click.option("--asset-id", help="Name of the asset, for a single image; default: the sha256 of its bytes.")
@_activation_options
@_metadata("--meta", "meta", "Metadata of the asset (repeatable).")
@click.option("--again", is_flag=True, help="Activate even if the same request was made before.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder for the protected images.")
@_timeout
@_json
def activate(images: tuple[str, ...], out: Path | None, timeout_s: float | None, as_json: bool, **chosen: Any) -> None:
    """Protect images and register them, so that edited copies can be found again.

    IMAGE is a JPEG, PNG, WebP, TIFF, GIF, AVIF or HEIC file; a FOLDER is searched recursively; - reads one image from
    standard input.
    """
    from producer import run  # noqa: PLC0415  # Celery and the S3 client take long to import

    batch = run.prepare(images)
    if chosen["asset_id"] and len(batch.found) != 1:
        raise click.UsageError(f"--asset-id names one image, and {len(batch.found)} were given.")
    run.activate(batch, run.Output(timeout_s, as_json, out), chosen)


@click.command(cls=Command)
@_images
@_collection
@click.option("--top", "top_k", default=5, show_default=True, type=click.IntRange(1, 100), help="Matches to return.")
@click.option("--nprobe", default=1, show_default=True, type=click.IntRange(1, 65536), help="Index cells to search.")
@_metadata("--where", "where", "Only assets with this metadata (repeatable).")
@_timeout
@_json
def query(
    images: tuple[str, ...], collection: str | None, timeout_s: float | None, as_json: bool, **options: Any
) -> None:
    """Find the registered images that these are copies of."""
    from producer import run  # noqa: PLC0415  # as above

    run.query(run.prepare(images), run.Output(timeout_s, as_json), collection, options)
