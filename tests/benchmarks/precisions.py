"""R@1 by what references are extracted in: ``python -m tests.benchmarks.precisions --images DIR --references TAR…``.

The index is trained on the references in float32, and filled with theirs in each precision; photographs, as they are,
and their copies in the fourteen edits are extracted in float32, as a worker does it. With ``--extractor FILE.onnx``,
ONNX Runtime's features are a row as well, in the precision of the file. Intervals are of 95 %, over photographs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
import numpy as np
import torch
from PIL import Image
from torch import nn

from tests.benchmarks.recall import LIMITS
from workers.evaluation.searching import Index, found_by_edit
from workers.evaluation.uncertainty import bootstrap
from workers.extractors.base import FeatureSource
from workers.extractors.features import Features
from workers.extractors.network import embed
from workers.extractors.onnx_runtime import OnnxRuntime
from workers.extractors.prepare import PRECISIONS
from workers.extractors.registry import NetworkExtractor, load_extractor, load_network
from workers.extractors.training.data import held_out
from workers.images import decode
from workers.images.edits import EDITS, edit_seed
from workers.images.folders import image_files, listed_images
from workers.images.tensors import to_input
from workers.index.codec.codec import Codec

NPROBES: Final = (1, 16)
BATCH: Final = 16


class InPrecision:
    """A network that computes in one type from the first layer to the last."""

    def __init__(self, net: nn.Module, like: NetworkExtractor, precision: str) -> None:
        self._dtype = PRECISIONS[precision]
        self._net = net.eval().to(self._dtype)
        self.sha256 = f"{like.sha256} in {precision}"
        self.input_size, self.dimension, self.device = like.input_size, like.dimension, torch.device("cpu")

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return embed(self._net, images, self._dtype)


@click.command(help=__doc__)
@click.option("--images", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--references", required=True, multiple=True, type=click.Path(exists=True, path_type=Path))
@click.option("--among", default=10_000, show_default=True, help="References at most.")
@click.option("--hold-out", default=4, show_default=True, help="Every K-th image: those not trained on.")
@click.option("--count", default=200, show_default=True, help="Images at most.")
@click.option("--extractor", default="compact", show_default=True)
@click.option("--factory", default="OPQ8_64,IVF128,PQ8x8", show_default=True)
def main(
    images: Path, references: tuple[Path, ...], among: int, hold_out: int, count: int, extractor: str, factory: str
) -> None:
    whole = load_extractor(extractor, torch.device("cpu"), precision="float32")
    pictures = [data for i, (_, data) in enumerate(image_files(images)) if held_out(i, hold_out)][:count]
    originals = [decode(data, LIMITS).pixels for data in pictures]
    copies = {name: copies_of(whole, originals, name) for name in EDITS}
    inputs = reference_inputs(references, among, whole.input_size)
    wanted = features_of(whole, inputs)
    codec = Codec.train(factory, wanted)
    own = codec.encode(features_of(whole, torch.stack([to_input(p, whole.input_size) for p in originals])))
    click.echo(f"{extractor}, {factory}, {len(inputs):,} references, {len(originals)} photographs as they are")
    for name, source in sources(extractor, whole):
        given = features_of(source, inputs)
        cosines = (given * wanted).sum(1)
        row = f"{name:<13}cosine {cosines.mean():.4f}, at least {cosines.min():.4f}"
        index = Index(codec, codec.encode(given), own)
        for nprobe in NPROBES:
            first = index.first_matches(np.concatenate(list(copies.values())), nprobe)
            shares = np.mean(list(found_by_edit(first, copies).values()), axis=0)
            low, high = bootstrap(shares)
            row += f"  R@1 at nprobe {nprobe}: {shares.mean():.4f} ({low:.3f} to {high:.3f})"
        click.echo(row)


def sources(name: str, whole: NetworkExtractor) -> Iterator[tuple[str, FeatureSource]]:
    for precision in PRECISIONS:
        yield precision, InPrecision(load_network(name), whole, precision)
    if ".onnx" in name:
        yield "ONNX Runtime", OnnxRuntime(name, whole)


def reference_inputs(sources: tuple[Path, ...], among: int, side: int) -> torch.Tensor:
    files = [file for source in sources for file in listed_images(source)][:among]
    return torch.stack([to_input(decode(file.read(), LIMITS).pixels, side) for file in files])


def copies_of(extractor: NetworkExtractor, originals: list[np.ndarray], name: str) -> Features:
    edited = (EDITS[name](Image.fromarray(p), edit_seed(0, str(i))) for i, p in enumerate(originals))
    return features_of(extractor, torch.stack([to_input(np.asarray(e), extractor.input_size) for e in edited]))


@torch.no_grad()
def features_of(source: FeatureSource, inputs: torch.Tensor) -> Features:
    """(N, D) of (N, 3, S, S)."""
    return np.concatenate([source(inputs[i : i + BATCH]).numpy() for i in range(0, len(inputs), BATCH)])


if __name__ == "__main__":
    main()
