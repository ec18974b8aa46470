"""``aii extractor``: train the extractor that comes with the package, and show or measure any."""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tasks.command_line import FilePath, FiniteRange, Group
from tasks.output_files import check_output, force_option, write_output
from tasks.settings import load_settings
from workers.extractors.training.settings import TrainingSettings

if TYPE_CHECKING:
    from workers.evaluation.extractor import ExtractorFigures
    from workers.images import Limits

__all__ = ["extractor"]

_existing = FilePath(exists=True)


@click.group(cls=Group)
def extractor() -> None:
    """Train the extractor `compact` on your own images, and measure any extractor."""


@extractor.command()
@click.option("--images", multiple=True, required=True, type=_existing, help="Folder or tar file; may be given again.")
@click.option("--out", required=True, type=FilePath(dir_okay=False), help="File for the weights.")
@click.option("--minutes", required=True, type=FiniteRange(0, min_open=True), help="How long to train.")
@click.option("--seed", default=TrainingSettings.seed, show_default=True)
@click.option(
    "--hold-out", default=TrainingSettings.hold_out, show_default=True, type=click.IntRange(0), metavar="K",
    help="Do not train on every K-th image of each folder, for measuring.",
)  # fmt: skip
@click.option("--fine-tune", type=_existing, help="Weights to start from, such as the shipped ones.")
@click.option(
    "--peak-lr", default=TrainingSettings.peak_lr, show_default=True, type=FiniteRange(0, min_open=True),
    help="Highest learning rate; a third of the default suits fine-tuning.",
)  # fmt: skip
@click.option("--batch", default=TrainingSettings.batch, show_default=True, type=click.IntRange(2))
@click.option("--resume", is_flag=True, help="Go on from the checkpoint beside --out.")
@force_option
def train(out: Path, images: tuple[Path, ...], resume: bool, force: bool, **given: Any) -> None:
    """Train `compact` on folders or tar files of images.

    Writes the weights to --out (.safetensors), and beside them their provenance (.json), the curve (.csv) and a
    checkpoint. Workers load the file by AII_EXTRACTOR.
    """
    if out.suffix != ".safetensors":
        raise click.BadParameter("the file's name has to end in .safetensors", param_hint="--out")
    command = shlex.join(["aii", *_without_folders(sys.argv[1:])])
    settings = TrainingSettings(images=images, out=out, limits=_limits(), command=command, **given)
    for path in settings.files:
        check_output(path, force=force or resume)
    from workers.extractors.training.train import train as run  # noqa: PLC0415  # loads torch

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    run(settings, resume=resume)
    click.echo(f"Weights: {out}")


@extractor.command()
@click.option("--photos", required=True, type=_existing, help="Folder or tar file of photographs to edit.")
@click.option(
    "--references", multiple=True, required=True, type=_existing, help="What fills the index; may be given again."
)
@click.option(
    "--hold-out", default=0, show_default=True, type=click.IntRange(0), metavar="K",
    help="Measure every K-th photograph only: those that training with the same K left out.",
)  # fmt: skip
@click.option("--extractor", "name", default="compact", show_default=True, help="Its name, or where its weights are.")
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "path", type=FilePath(dir_okay=False), help="Write the figures here as well.")
@force_option
def measure(
    photos: Path, references: tuple[Path, ...], hold_out: int, name: str, seed: int, path: Path | None, force: bool
) -> None:
    """Measure R@1 of edited photographs in an exact index, and the extractor's speed on one core."""
    check_output(path, force=force)
    import torch  # noqa: PLC0415

    from tasks.storage import ObjectStore  # noqa: PLC0415
    from workers.evaluation.extractor import measure_extractor  # noqa: PLC0415
    from workers.extractors.registry import load_extractor  # noqa: PLC0415

    loaded = load_extractor(name, torch.device("cpu"), ObjectStore.connect(load_settings()))
    figures = measure_extractor(loaded, photos, references, hold_out, seed, _limits())
    _print(figures)
    if path:
        write_output(path, json.dumps(figures, indent=2) + "\n")


@extractor.command()
@click.argument("address", default="compact")
def show(address: str) -> None:
    """Say what an extractor is: name, digest, size, dimension, precision, and speed on one core.

    ADDRESS is `compact` (the default), a path, s3://BUCKET/KEY or a URL, as in AII_EXTRACTOR.
    """
    import torch  # noqa: PLC0415

    from tasks.storage import ObjectStore  # noqa: PLC0415
    from workers.evaluation.extractor import speed_ms  # noqa: PLC0415
    from workers.extractors.registry import load_extractor  # noqa: PLC0415

    settings = load_settings()
    loaded = load_extractor(address, torch.device("cpu"), ObjectStore.connect(settings), precision=settings.precision)
    rows = {
        "name": loaded.name,
        "sha256": loaded.sha256,
        "input": f"{loaded.input_size} × {loaded.input_size}",
        "dimension": loaded.dimension,
        "precision": loaded.precision,
        "one core": _speed(speed_ms(loaded)),
    }
    for name, value in rows.items():
        click.echo(f"{name:<12}{value}")


def _print(figures: ExtractorFigures) -> None:
    for name, value in [*figures["recall_at_1"].items(), ("average of the 13", figures["average_of_13"])]:
        click.echo(f"{name:<20}{value:.3f}")
    share = figures["true_positive_rate_at_fpr_1e-4"]
    click.echo(f"{share:.3f} of all edits pass the threshold that 1 of 10,000 unrelated pairs of photographs passes")
    click.echo(f"one image on one core: {_speed(figures['speed_one_core'])}")


def _speed(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{name.removesuffix('_ms').replace('_', ' and ')} {ms} ms" for name, ms in figures.items())


def _limits() -> Limits:
    from workers.images import Limits  # noqa: PLC0415  # loads numpy and Pillow

    settings = load_settings()
    return Limits(max_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels)


def _without_folders(words: Sequence[str]) -> list[str]:
    """Arguments with paths cut to their last part: the record names the data, not where it was kept."""
    return [Path(word).name if os.sep in word else word for word in words]
