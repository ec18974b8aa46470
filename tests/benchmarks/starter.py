"""What is found in the starter collection: ``python -m tests.benchmarks.starter --photos DIR --hold-out 4``.

Photographs are protected in it, and their fourteen edits searched among its codes. For each score of its calibration,
the share of copies that come first with that score or a better one is what turns a score into a probability; with
``--write`` the collection's card gets these shares, after ``aii index make-starter`` made its other files.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import torch

from tasks.messages import ActivationOptions
from tests.benchmarks.frontier import copies_of
from tests.benchmarks.recall import LIMITS, Setting, activate, held_out
from workers.activation.engine import Engine
from workers.extractors.registry import load_extractor
from workers.images import decode
from workers.images.edits import EDITS
from workers.images.folders import image_files
from workers.index.codec.codec import Codec
from workers.index.maintenance import starter
from workers.index.verdicts.background import Background
from workers.index.verdicts.measure import Contents, copies_found, first_assets


@click.command(help=__doc__)
@click.option("--photos", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--hold-out", default=0, help="Use every K-th photograph only: those `compact` was not trained on.")
@click.option("--count", default=200, show_default=True, help="Photographs at most.")
@click.option("--write", is_flag=True, help="Write the shares into the card that comes with the package.")
def main(photos: Path, hold_out: int, count: int, write: bool) -> None:
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
    own = np.tile(np.arange(len(codes)), len(EDITS)).tolist()
    curves = []
    for curve in card.calibration.curves:
        positions, scores, nearest = first_assets(contents, curve, copies)
        right = positions == own
        limits = [card.calibration.threshold(fpr, curve.nprobe, len(codes)) for fpr in (0.01, 0.001)]
        matched = [float(np.mean(right & (scores <= limit))) for limit in limits if limit is not None]
        click.echo(
            f"{card.factory}, nprobe {curve.nprobe:>2}: R@1 {np.mean(right & nearest):.3f}, first among assets "
            f"{np.mean(right):.3f}, matched at 1 %, 0.1 %: {', '.join(f'{share:.3f}' for share in matched)}"
        )
        curves.append(curve.model_copy(update={"copies": copies_found(contents, curve, copies, own)}))
    if write:
        told = f"{len(codes)} photographs protected in the starter collection, fourteen edits"
        calibration = card.calibration.model_copy(update={"curves": curves, "copies_of": told})
        written = card.model_copy(update={"calibration": calibration})
        (starter.FOLDER / starter.CARD).write_text(written.model_dump_json() + "\n")


if __name__ == "__main__":
    main()
