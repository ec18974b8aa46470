"""Make the starter collection's files from reference images: ``python -m workers.index.build_starter --help``."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import torch

from tasks.results import ExtractorIdentity
from workers.evaluation.folders import pictures
from workers.extractors.base import Extractor
from workers.extractors.inputs import to_input
from workers.extractors.registry import load_extractor
from workers.index.codec import Codec, Features, search
from workers.index.starter import FOLDER, Card

_BATCH = 32  # small enough for the processor's caches


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
    identity = ExtractorIdentity(name=extractor.name, sha256=extractor.sha256, dimension=extractor.dimension)
    features = np.concatenate([extract(extractor, path) for path in references])
    codec = Codec.train(factory, features)
    codes = codec.encode(features)
    threshold = calibrate(codec, codes, extract(extractor, background), fpr)
    FOLDER.mkdir(exist_ok=True)
    codec.write(FOLDER / "codec.faiss")
    np.savez_compressed(FOLDER / "codes.npz", codes=codes)
    card = Card(
        factory=factory,
        extractor=identity,
        count=len(codes),
        threshold=threshold,
        threshold_fpr=fpr,
        description=description,
    )
    (FOLDER / "starter.json").write_text(card.model_dump_json(indent=2) + "\n")
    click.echo(
        f"{len(codes):,} codes of {codec.code_size} bytes, threshold {threshold:.4f} at a false-positive rate of {fpr}."
    )


def extract(extractor: Extractor, path: Path) -> Features:
    """Features (N, D) of all pictures in a folder or a tar file, in the order of their names."""
    parts, batch = [], []
    for picture in pictures(path):
        batch.append(to_input(np.asarray(picture), extractor.input_size))
        if len(batch) == _BATCH:
            parts.append(_features(extractor, batch))
            batch = []
    if batch:
        parts.append(_features(extractor, batch))
    return np.concatenate(parts)


def _features(extractor: Extractor, batch: list[torch.Tensor]) -> Features:
    with torch.no_grad():
        features: Features = extractor(torch.stack(batch)).numpy()
    return features


def calibrate(codec: Codec, codes: np.ndarray, background: Features, fpr: float) -> float:
    """The squared distance under which a share `fpr` of unrelated features (N, D) find a first match, at nprobe 1."""
    index = codec.filled(codes)
    distances = [hits[0][1] if (hits := search(index, feature, 1, 1)) else np.inf for feature in background]
    return float(np.quantile(distances, fpr))


if __name__ == "__main__":
    main()
