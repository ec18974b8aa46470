"""Make the starter collection's files from reference images: ``python -m workers.index.maintenance.build_starter``."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import torch

from workers.extractors.base import Extractor
from workers.extractors.features import FeatureFolder, Features
from workers.extractors.registry import load_extractor
from workers.images import Limits
from workers.index.codec.codec import Codec
from workers.index.maintenance.build import calibrate
from workers.index.maintenance.starter import FOLDER, Card

_LIMITS = Limits(max_bytes=64 * 2**20, max_pixels=100_000_000)


@click.command()
@click.option("--references", "references", multiple=True, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--background",
    required=True,
    type=click.Path(exists=True, path_type=Path),
    help="Images unrelated to the references, to calibrate the threshold.",
)
@click.option("--factory", default="IVF512,PQ8x8", show_default=True)
@click.option("--fpr", default=0.01, show_default=True, help="Share of unrelated images that may pass the threshold.")
@click.option("--description", required=True, help="What the reference images are.")
def main(references: tuple[Path, ...], background: Path, factory: str, fpr: float, description: str) -> None:
    """Extract, train, encode, calibrate; write the files beside this module."""
    extractor = load_extractor("compact", torch.device("cpu"))
    features, unrelated = _extracted(extractor, references), _extracted(extractor, [background])
    codec = Codec.train(factory, features)
    codes = codec.encode(features)
    threshold = calibrate(codec, codes, unrelated, fpr)
    if threshold is None:
        raise click.UsageError("No background image finds a first match: take more references.")
    FOLDER.mkdir(exist_ok=True)
    codec.write(FOLDER / "codec.faiss")
    np.savez_compressed(FOLDER / "codes.npz", codes=codes)
    card = Card(
        factory=factory,
        extractor=extractor.identity,
        count=len(codes),
        threshold=threshold,
        threshold_fpr=fpr,
        description=description,
    )
    (FOLDER / "starter.json").write_text(card.model_dump_json(indent=2) + "\n")
    click.echo(
        f"{len(codes):,} codes of {codec.code_size} bytes, threshold {threshold:.4f} at a false-positive rate of {fpr}."
    )


def _extracted(extractor: Extractor, sources: Sequence[Path]) -> Features:
    with tempfile.TemporaryDirectory() as folder:
        made = FeatureFolder(Path(folder), extractor, sources)
        made.fill(_LIMITS, lambda _: None)
        return np.array(made.features)


if __name__ == "__main__":
    main()
