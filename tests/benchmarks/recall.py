"""What activation buys on every family of index: ``python -m tests.benchmarks.recall --images DIR --references TAR…``.

R@1 over the fourteen edits by nprobe, and over the thirteen without ``random``, with Wilson's 95 % intervals, PSNR,
SSIM, and milliseconds of a core for an image, from pixels to a JPEG of quality 95, for originals (passive) and for what
the engine makes of them: ten steps, one step, an L-infinity bound at the same PSNR, robust mode, and both of these.
With several strengths, each mode is measured at each of them. Such a JPEG alone differs from its pixels by 48 dB on
average, so a weak change is judged without it (``--lossless``), as the paper judges its own.
"""

from __future__ import annotations

import io
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
import torch
from PIL import Image

from tasks.messages import ActivationOptions
from tests.benchmarks.activation import drain
from workers.activation.compose import compose, prepare
from workers.activation.engine import Engine, Work
from workers.activation.quality import psnr_db, ssim
from workers.extractors.features import FeatureFolder
from workers.extractors.registry import load_extractor
from workers.extractors.training.data import held_out
from workers.images import Limits, decode
from workers.images.edits import EDITS, edit_seed
from workers.images.folders import image_files
from workers.images.tensors import to_input
from workers.index.codec.codec import Codec, search
from workers.index.verdicts.calibration import wilson

FACTORIES = ("IVF512,PQ8x8", "IVF1024,PQ8x8", "IVF1024,Flat", "PQ8x8", "OPQ8_64,PQ8x8", "PCA64,LSH")
MODES = ("10 steps", "1 step", "linf", "robust", "robust linf")
RANDOM = "random"  # the one edit that the paper's reference implementation was not measured on
_OF_A_MODE = ("alpha", "psnr_db", "ssim", "core_ms")
BATCH = 8
LIMITS = Limits(max_bytes=64 * 2**20, max_pixels=100_000_000)


@dataclass(frozen=True)
class Setting:
    """Engine, originals, the references' features, and whether pixels are published as they are, not as a JPEG."""

    engine: Engine
    originals: Sequence[np.ndarray]
    references: np.ndarray
    lossless: bool = False


@click.command(help=__doc__)
@click.option("--images", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--references", multiple=True, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--hold-out", default=0, help="Use every K-th image only: those the extractor was not trained on.")
@click.option("--count", default=200, show_default=True, help="Images at most.")
@click.option("--factory", "factories", multiple=True, default=FACTORIES, show_default=True)
@click.option("--alpha", "alphas", multiple=True, type=float, default=(3.0,), show_default=True)
@click.option(
    "--linf-alpha",
    "linf_alphas",
    multiple=True,
    type=float,
    default=(5.0,),
    show_default=True,
    help="Grey levels; choose what gives the same PSNR.",
)
@click.option("--nprobe", "nprobes", multiple=True, type=int, default=(1,), show_default=True, help="Cells searched.")
@click.option("--features", "kept", type=click.Path(path_type=Path), help="A .npy that keeps the references' features.")
@click.option("--mode", "modes", multiple=True, type=click.Choice(MODES), default=MODES, show_default=True)
@click.option("--lossless", is_flag=True, help="Publish pixels as they are.")
@click.option("--no-passive", is_flag=True, help="Leave the originals out: they are the same in every run.")
@click.option("--extractor", default="compact", show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path))
def main(  # one parameter an option
    images: Path,
    references: tuple[Path, ...],
    hold_out: int,
    count: int,
    factories: tuple[str, ...],
    alphas: tuple[float, ...],
    linf_alphas: tuple[float, ...],
    nprobes: tuple[int, ...],
    kept: Path | None,
    modes: tuple[str, ...],
    lossless: bool,
    no_passive: bool,
    extractor: str,
    json_path: Path | None,
) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    engine = Engine(load_extractor(extractor, device))
    chosen = [data for i, (_, data) in enumerate(image_files(images)) if not hold_out or held_out(i, hold_out)]
    originals = [decode(data, LIMITS).pixels for data in chosen[:count]]
    setting = Setting(engine, originals, reference_features(engine, references, kept), lossless)
    variants = [(mode, some) for mode in modes for some in _options(mode, linf_alphas if "linf" in mode else alphas)]
    rows = []
    for factory in factories:
        for row in measure(setting, factory, variants, nprobes, passive=not no_passive):
            rows.append(row)
            _show(row)
            if json_path:
                json_path.write_text(json.dumps(rows, indent=2) + "\n")


def _options(mode: str, alphas: Sequence[float]) -> list[ActivationOptions]:
    """Those of a mode, at each strength."""
    attenuation: Literal["linf", "jnd"] = "linf" if "linf" in mode else "jnd"
    steps = 1 if mode == "1 step" else 10
    robust = mode.startswith("robust")
    return [ActivationOptions(alpha=alpha, attenuation=attenuation, robust=robust, steps=steps) for alpha in alphas]


def _show(row: dict[str, Any]) -> None:
    edits = " ".join(f"{name}={value:.2f}" for name, value in row["recall_at_1"].items())
    strength = "" if row["alpha"] is None else f" {row['alpha']:g}"
    mode = f"{row['mode']}{strength}, nprobe {row['nprobe']}"
    found = "  ".join("{:.4f} ({:.3f} to {:.3f})".format(*row[name]) for name in ("average", "average_of_13"))
    cost = f"{row['psnr_db'] or 0:.2f} dB  SSIM {row['ssim'] or 1:.4f}  {row['core_ms'] or 0:5.0f} ms"
    click.echo(f"{row['factory']:<22}{mode:<25}{found}  {cost}  {edits}")


def reference_features(engine: Engine, references: tuple[Path, ...], kept: Path | None) -> np.ndarray:
    """Features (N, D) of the references; of the file `kept`, if there is one, which is written otherwise."""
    if kept and kept.exists():
        return np.load(kept)  # type: ignore[no-any-return]
    with tempfile.TemporaryDirectory() as folder:
        made = FeatureFolder(Path(folder), engine.extractor, references)
        made.fill(LIMITS, lambda _: None)
        known = np.array(made.features)
    if kept:
        np.save(kept, known)
    return known


def measure(
    setting: Setting, factory: str, variants: Sequence[tuple[str, ActivationOptions]], nprobes: Sequence[int],
    *, passive: bool,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """A row for each mode and nprobe, as soon as the mode is measured."""
    codec = Codec.train(factory, setting.references)
    codes = codec.encode(setting.references)
    said: dict[str, Any] = {"factory": factory, "mode": "passive"} | dict.fromkeys(_OF_A_MODE)
    if passive:
        inputs = [to_input(pixels, setting.engine.extractor.input_size) for pixels in setting.originals]
        own = codec.encode(setting.engine.features(torch.stack(inputs)))
        yield from _rows(said, setting, recall(setting, codec, codes, own, setting.originals, nprobes))
    for mode, options in variants:
        began = time.process_time()
        published, registered = activate(setting, codec, options)
        core_ms = 1000 * (time.process_time() - began) / len(published)
        pairs = list(zip(setting.originals, published, strict=True))
        psnr, similarity = (float(np.mean([of(*pair) for pair in pairs])) for of in (psnr_db, ssim))
        shares = recall(setting, codec, codes, registered, published, nprobes)
        measured = zip(_OF_A_MODE, (options.alpha, psnr, similarity, core_ms), strict=True)
        yield from _rows(said | {"mode": mode} | dict(measured), setting, shares)


def activate(setting: Setting, codec: Codec, options: ActivationOptions) -> tuple[list[np.ndarray], np.ndarray]:
    """What is published, decoded again, and the codes it is registered under."""
    published: list[np.ndarray] = []
    codes: list[np.ndarray] = []
    for start in range(0, len(setting.originals), BATCH):
        part = setting.originals[start : start + BATCH]
        side = setting.engine.extractor.input_size
        prepared = [prepare(pixels, side, options.alpha, options.attenuation) for pixels in part]
        found = drain(setting.engine.activate([Work(p, codec, options, options.steps) for p in prepared]))
        changed = [compose(o, p, f.change) for o, p, f in zip(part, prepared, found, strict=True)]
        published += changed if setting.lossless else [_as_jpeg(pixels) for pixels in changed]
        codes += [f.code for f in found]
    return published, np.stack(codes)


def _as_jpeg(pixels: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, subsampling="4:4:4")
    return np.asarray(Image.open(buffer).convert("RGB"))


def recall(
    setting: Setting, codec: Codec, references: np.ndarray, codes: np.ndarray, published: Sequence[np.ndarray],
    nprobes: Sequence[int] = (1,),
) -> dict[int, dict[str, float]]:  # fmt: skip
    """R@1 by nprobe and edit, with the references and all images in one index."""
    index, first = codec.filled(np.concatenate([references, codes])), len(references)
    right, shares = first + np.arange(len(published)), {nprobe: dict[str, float]() for nprobe in nprobes}
    for name, edit in EDITS.items():
        side = setting.engine.extractor.input_size
        edited = (edit(Image.fromarray(p), edit_seed(0, str(i))) for i, p in enumerate(published))
        copies = [to_input(np.asarray(image), side) for image in edited]
        features = setting.engine.features(torch.stack(copies))
        for nprobe, by_edit in shares.items():
            hits = (search(index, codec.probe(feature, nprobe), 1) for feature in features)
            by_edit[name] = float(np.mean(np.array([hit[0][0] if hit else -1 for hit in hits]) == right))
    return shares


def _rows(said: dict[str, Any], setting: Setting, shares: dict[int, dict[str, float]]) -> Iterator[dict[str, Any]]:
    for nprobe, by_edit in shares.items():
        thirteen = [share for name, share in by_edit.items() if name != RANDOM]
        found = {
            "average": _average(list(by_edit.values()), len(setting.originals)),
            "average_of_13": _average(thirteen, len(setting.originals)),
        }
        yield said | {"nprobe": nprobe} | found | {"recall_at_1": by_edit}


def _average(shares: Sequence[float], photographs: int) -> tuple[float, float, float]:
    """Of the shares of copies found, by edit, with its interval as if all copies were independent."""
    average, copies = float(np.mean(shares)), len(shares) * photographs
    return average, *wilson(round(average * copies), copies)


if __name__ == "__main__":
    main()
