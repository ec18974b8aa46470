"""What is found in the starter collection: ``python -m tests.benchmarks.starter --photos DIR --hold-out 4``.

Photographs are protected in it, and their fourteen edits searched among its codes; with ``--references TAR…``, of which
it was made, also where it would store features. For each score of its calibration, the share of copies that come first
with that score or a better one is what turns a score into a probability; with ``--write`` the collection's card gets
these shares, after ``aii index make-starter`` made its other files.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import torch

from tasks.messages import ActivationOptions
from tests.benchmarks.frontier import copies_of
from tests.benchmarks.recall import LIMITS, Setting, activate, held_out, reference_features
from workers.activation.engine import Engine
from workers.evaluation.verdicts import calibrated_on
from workers.extractors.registry import load_extractor
from workers.images import decode
from workers.images.edits import EDITS
from workers.images.folders import image_files
from workers.images.tensors import to_input
from workers.index.codec.codec import Codec, Features
from workers.index.codec.stored import FeatureFormat
from workers.index.maintenance import starter
from workers.index.verdicts.background import Background
from workers.index.verdicts.calibration import Calibration
from workers.index.verdicts.measure import Contents, copies_found, first_assets


@click.command(help=__doc__)
@click.option("--photos", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--references", multiple=True, type=click.Path(exists=True, path_type=Path))
@click.option("--features", "kept", type=click.Path(path_type=Path), help="A .npy that keeps the references' features.")
@click.option("--hold-out", default=0, help="Use every K-th photograph only: those `compact` was not trained on.")
@click.option("--count", default=200, show_default=True, help="Photographs at most.")
@click.option("--write", is_flag=True, help="Write the shares into the card that comes with the package.")
def main(photos: Path, references: tuple[Path, ...], kept: Path | None, hold_out: int, count: int, write: bool) -> None:
    card = starter.read_card()
    codec = Codec.read(starter.FOLDER / starter.CODEC, card.factory)
    background = Background.read(starter.FOLDER / starter.BACKGROUND)
    engine = Engine(load_extractor("compact", torch.device("cpu"), precision="float32"))
    chosen = [data for i, (_, data) in enumerate(image_files(photos)) if not hold_out or held_out(i, hold_out)]
    originals = [decode(data, LIMITS).pixels for data in chosen[:count]]
    setting = Setting(engine, originals, background.features)
    published, codes = activate(setting, codec, ActivationOptions())
    copies = copies_of(setting, published)
    others = np.concatenate([starter.read_codes(), starter.plain_codes(codec, background)])
    contents = Contents(codec, np.concatenate([codes, others]), len(codes))
    measured = {"calibration": with_copies(contents, card.calibration, copies)}
    if references:
        known = np.concatenate([reference_features(engine, references, kept), background.plain])
        stored = FeatureFormat("int8", known.shape[1])
        rows = stored.decode(stored.encode(np.concatenate([_features(engine, originals), known])))
        click.echo("with stored features:")
        among = calibrated_on(codec, known[: card.count], others, rows[len(codes) :].__getitem__)
        measured["reranked"] = with_copies(replace(contents, features=rows.__getitem__), among, copies)
    if write:
        written = card.model_copy(update=measured)
        (starter.FOLDER / starter.CARD).write_text(written.model_dump_json() + "\n")


def with_copies(contents: Contents, calibration: Calibration, copies: Features) -> Calibration:
    """A calibration with the shares of copies (E·N, D) of all N assets, which are printed too."""
    own = np.tile(np.arange(contents.assets), len(EDITS)).tolist()
    curves = []
    for curve in calibration.curves:
        positions, scores, nearest = first_assets(contents, curve, copies)
        right = positions == own
        limits = [calibration.threshold(fpr, curve.nprobe, contents.assets) for fpr in (0.01, 0.001)]
        matched = [float(np.mean(right & (scores <= limit))) for limit in limits if limit is not None]
        click.echo(
            f"{contents.codec.factory}, nprobe {curve.nprobe:>2}: R@1 {np.mean(right & nearest):.3f}, first among "
            f"assets {np.mean(right):.3f}, matched at 1 %, 0.1 %: {', '.join(f'{share:.3f}' for share in matched)}"
        )
        curves.append(curve.model_copy(update={"copies": copies_found(contents, curve, copies, own)}))
    told = f"{contents.assets} photographs protected in the starter collection, fourteen edits"
    return calibration.model_copy(update={"curves": curves, "copies_of": told})


def _features(engine: Engine, pictures: list[np.ndarray]) -> Features:
    inputs = [to_input(picture, engine.extractor.input_size) for picture in pictures]
    return np.concatenate([engine.features(torch.stack(inputs[i : i + 32])) for i in range(0, len(inputs), 32)])


if __name__ == "__main__":
    main()
