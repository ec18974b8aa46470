"""What a user gets of a query: ``python -m tests.benchmarks.verdicts --photos DIR --references TAR…``.

Half of the photographs are protected among the references, which belong to no asset, in the starter collection's index,
or for another extractor in one trained and calibrated on the references; the others, their edits and pages of text are
unrelated. *before* is how version 0.1.0 judged: by distance, every
reference being an answer, at a threshold that half of the unrelated photographs set. The second table compares scores
where every reference is an asset, as in a large archive.

It extracts some 50,000 features. With ``--kept DIR`` they stay in a folder, and an interrupted run goes on there.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image

from tasks.messages import ActivationOptions, View
from tests.benchmarks.recall import LIMITS, Setting, activate
from workers.activation.engine import Engine
from workers.evaluation.verdicts import FPRS, calibrated_on, verdict_rows
from workers.extractors.features import FeatureFolder
from workers.extractors.registry import load_extractor
from workers.handlers.query_views import views_of
from workers.images import decode
from workers.images.edits import EDITS, MORE_EDITS, edit_seed
from workers.images.folders import image_files
from workers.images.tensors import to_input
from workers.index.codec.codec import Codec, Codes, Features, search_many
from workers.index.codec.stored import FeatureFormat, FeatureType
from workers.index.maintenance import starter
from workers.index.maintenance.plain_images import plain_images
from workers.index.verdicts.background import Background
from workers.index.verdicts.calibration import Calibration, wilson
from workers.index.verdicts.duplicates import near_distance, neighbours
from workers.index.verdicts.measure import Contents, first_assets

NPROBES = (1, 4, 16, 64)
DEPTH = 60
PAGES = 400


@dataclass(frozen=True)
class Measured:
    """Features: (E·N, D) of the protected photographs' copies, edit by edit; (M, D) and (M·E, D) of unrelated
    photographs and their copies; (P, D) of plain images."""

    contents: Contents
    copies: Features
    unrelated: Features
    edited: Features
    plain: Features


@dataclass(frozen=True)
class Basis:
    """What the verdicts rest on: codes of distractors (M, code_size) beside codec and calibration; a background tells
    plain images."""

    codec: Codec
    calibration: Calibration
    distractors: Codes
    background: Background | None


@dataclass(frozen=True)
class Extracting:
    """Extracts features, and keeps them in a folder by what they are of."""

    engine: Engine
    folder: Path

    def references(self, sources: tuple[Path, ...]) -> Features:
        """(M, D) of image files."""
        made = FeatureFolder(self.folder / "references", self.engine.extractor, sources)
        made.fill(LIMITS, lambda _: None)
        return np.array(made.features)

    def copies(self, pictures: Sequence[np.ndarray]) -> Features:
        """(E·N, D) of the edits of N pictures, edit by edit."""
        return np.concatenate([self.features(pictures, name) for name in EDITS])

    def features(self, pictures: Sequence[np.ndarray], edit: str | None = None) -> Features:
        """(N, D) of N pictures, or of one edit of each."""
        digest = hashlib.sha256(f"{self.engine.extractor.sha256} {edit}".encode())
        for picture in pictures:
            digest.update(str(picture.shape).encode() + picture.tobytes())
        path = self.folder / f"{digest.hexdigest()}.npy"
        if path.exists():
            return np.load(path)  # type: ignore[no-any-return]
        inputs = [self._input(picture, edit, i) for i, picture in enumerate(pictures)]
        features = self.extracted(inputs)
        with tempfile.NamedTemporaryFile(dir=self.folder, delete=False) as file:
            np.save(file, features)
        Path(file.name).replace(path)
        return features

    def extracted(self, inputs: list[torch.Tensor]) -> Features:
        parts = (torch.stack(inputs[i : i + 32]) for i in range(0, len(inputs), 32))
        return np.concatenate([self.engine.features(part) for part in parts])

    def _input(self, picture: np.ndarray, edit: str | None, number: int) -> torch.Tensor:
        if edit:
            picture = np.asarray(EDITS[edit](Image.fromarray(picture), edit_seed(0, str(number))))
        return to_input(picture, self.engine.extractor.input_size)


@click.command(help=__doc__)
@click.option("--photos", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--references", multiple=True, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--hold-out", default=1, help="Protect every K-th photograph; the others are unrelated. Default: half.")
@click.option("--count", default=200, show_default=True, help="Protected photographs at most.")
@click.option("--unrelated", "most", type=int, help="Unrelated photographs at most.")
@click.option("--extractor", "name", default="compact", show_default=True)
@click.option("--kept", type=click.Path(path_type=Path), help="A folder for features, where a later run goes on.")
def main(  # one parameter an option
    photos: Path, references: tuple[Path, ...], hold_out: int, count: int, most: int | None, name: str,
    kept: Path | None,
) -> None:  # fmt: skip
    extractor = load_extractor(name, torch.device("cpu"), precision="float32")
    with tempfile.TemporaryDirectory() as temporary:
        extracting = Extracting(Engine(extractor), kept or Path(temporary))
        _compare(extracting, photos, extracting.references(references), (hold_out if hold_out > 1 else 2, count, most))


def _compare(extracting: Extracting, photos: Path, known: Features, shares: tuple[int, int, int | None]) -> None:
    """Print the tables, where every K-th photograph is protected, of N at most, and others, of M at most, are not."""
    every, count, most = shares
    pictures = [decode(data, LIMITS).pixels for _, data in image_files(photos)]
    features = extracting.features(pictures)
    # Some photographs are among the references at another size: neither is unrelated to the other.
    near = near_distance(known)
    twins = np.array([bool(found) for found in neighbours(features, known, near)])
    chosen = [i for i in range(0, len(pictures), every) if not twins[i]][:count]
    others = [i for i in range(len(pictures)) if i % every and not twins[i]][:most]
    basis = _shipped(known) if extracting.engine.extractor.name == "compact" else _trained(known)
    click.echo(f"{len(chosen)} protected, {len(others)} unrelated, {twins.sum()} left out as copies of references")
    setting = Setting(extracting.engine, [pictures[i] for i in chosen], known)
    published, codes = activate(setting, basis.codec, ActivationOptions())
    measured = Measured(
        Contents(basis.codec, np.concatenate([codes, basis.distractors]), len(codes)),
        extracting.copies(published),
        features[others],
        extracting.copies([pictures[i] for i in others]),
        extracting.features(list(plain_images(PAGES, seed=7))),
    )
    print_before(measured)
    print_now(measured, basis)
    print_reranked(measured, basis, features[chosen], known)
    print_views(extracting, measured, published, basis.calibration)
    print_scores(measured)


def _shipped(known: Features) -> Basis:
    """The starter collection's, which knows none of the photographs."""
    codec = Codec.read(starter.FOLDER / starter.CODEC, starter.read_card().factory)
    background = Background.read(starter.FOLDER / starter.BACKGROUND)
    distractors = np.concatenate([codec.encode(known), starter.plain_codes(codec, background)])
    return Basis(codec, starter.read_card().calibration, distractors, background)


def _trained(known: Features) -> Basis:
    codec = Codec.train(f"IVF{max(1, min(512, len(known) // 40))},PQ8x8", known)
    codes = codec.encode(known)
    return Basis(codec, calibrated_on(codec, known, codes), codes, None)


def print_before(measured: Measured) -> None:
    """By distance, all entries being answers."""
    contents, half = measured.contents, len(measured.unrelated) // 2
    right = np.tile(np.arange(contents.assets), len(EDITS))
    click.echo(f"\nbefore{'R@1':>15}{'matched at 1 %, 0.1 %':>25}{'originals':>11}   unrelated at 1 %, plain images")
    for nprobe in NPROBES:
        distances, positions = search_many(contents.codec, contents.index, measured.copies, nprobe, 1)
        found, d = positions[:, 0] == right, distances[:, 0]
        unrelated, plain = (
            search_many(contents.codec, contents.index, f, nprobe, 1)[0][:, 0]
            for f in (measured.unrelated, measured.plain)
        )
        limits = [np.quantile(unrelated[:half], fpr, method="lower") for fpr in FPRS]
        matched = " ".join(f"{np.mean(found & (d <= limit)):.3f}" for limit in limits)
        originals = np.mean((found & (d <= limits[0]))[: contents.assets])
        false = f"{_text(unrelated[half:] <= limits[0])}   {_text(plain <= limits[0])}"
        click.echo(f"nprobe {nprobe:<5}{found.mean():>9.3f}{matched:>25}{originals:>11.3f}   {false}")


def print_now(measured: Measured, basis: Basis) -> None:
    calibration = basis.calibration
    click.echo(f"\nnow{'R@1':>18}{'first asset':>13}{'matched':>9}{'originals':>11}   unrelated, edited, plain images")
    for kind in (measured.unrelated, measured.edited):
        for row in verdict_rows("", calibration, measured.contents, measured.copies, kind, activated=True):
            name = f"nprobe {row.nprobe}, {row.fpr:.1%}"
            false = f"{row.false_matches:.2%} ({row.false_matches_low:.2%} to {row.false_matches_high:.2%})"
            shares = f"{row.recall_at_1:.3f}{row.first:>13.3f}{row.matched:>9.3f}{row.originals:>11.3f}"
            click.echo(f"{name:<16}{shares}   {false}")
    curve = calibration.curve(1)
    _, scores, _ = first_assets(measured.contents, curve, measured.plain)
    limit = calibration.threshold(FPRS[0], 1, measured.contents.assets)
    click.echo(f"plain images: {np.mean(scores <= limit):.2%} within the threshold")
    if basis.background is not None:
        told = np.mean([basis.background.uninformative(feature) for feature in measured.plain])
        click.echo(f"plain images: {told:.3f} told as uninformative")


def print_reranked(measured: Measured, basis: Basis, originals: Features, known: Features) -> None:
    """The same where the features of protected photographs (N, D) and references (M, D) are stored."""
    contents = measured.contents
    plain = basis.background.plain if basis.background else known[:0]
    kinds: tuple[FeatureType, ...] = ("float16", "int8")
    for kind in kinds:
        stored = FeatureFormat(kind, known.shape[1])
        of_assets, of_others = (stored.decode(stored.encode(f)) for f in (originals, np.concatenate([known, plain])))
        rows = np.concatenate([of_assets, of_others])
        calibration = calibrated_on(basis.codec, known, basis.distractors, of_others.__getitem__)
        click.echo(f"\nbest matches compared by stored features, {kind}: {stored.row_bytes} bytes an image")
        exact = replace(contents, features=rows.__getitem__)
        print_now(replace(measured, contents=exact), replace(basis, calibration=calibration))


def print_views(
    extracting: Extracting, measured: Measured, published: list[np.ndarray], calibration: Calibration
) -> None:
    """Mirrored and turned copies, asked for as they are and with views."""
    edits = {"identity": EDITS["identity"], **MORE_EDITS, "rotation_90": EDITS["rotation_90"]}
    click.echo("\nviews, at 1 %, nprobe 1      as it is   with views")
    for name, edit in edits.items():
        copies = [np.asarray(edit(Image.fromarray(picture), 0)) for picture in published]
        asked: tuple[tuple[View, ...], ...] = ((), ("mirror", "rotations"))
        shares = [_with_views(extracting, measured.contents, calibration, copies, views) for views in asked]
        click.echo(f"{name:<28}{shares[0]:>8.3f}{shares[1]:>12.3f}")


def _with_views(
    extracting: Extracting,
    contents: Contents,
    calibration: Calibration,
    copies: list[np.ndarray],
    wanted: tuple[View, ...],
) -> float:
    """Share of the copies found and matched."""
    curve = calibration.curve(1)
    by_view: dict[str, list[torch.Tensor]] = {}
    for picture in copies:
        for name, view in views_of(to_input(picture, extracting.engine.extractor.input_size), wanted).items():
            by_view.setdefault(name, []).append(view)
    found = [first_assets(contents, curve, extracting.extracted(views))[:2] for views in by_view.values()]
    positions, scores = np.stack([p for p, _ in found]), np.stack([s for _, s in found])
    best = scores.argmin(axis=0), np.arange(len(copies))
    limit = calibration.threshold(FPRS[0] / len(found), 1, contents.assets)
    return float(np.mean((positions[best] == np.arange(len(copies))) & (scores[best] <= limit)))


def print_scores(measured: Measured) -> None:
    """Share of copies found and matched where every entry is an asset, by the form of the score."""
    contents = measured.contents
    right = np.tile(np.arange(contents.assets), len(EDITS))
    forms: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "distance": lambda d: d[:, 0],
        "distance − mean of 10": lambda d: d[:, 0] - d[:, 1:11].mean(axis=1),
        **{f"distance ÷ mean of {k}": lambda d, k=k: d[:, 0] / d[:, 1 : k + 1].mean(axis=1) for k in (1, 5, 10, 30)},
        "distance ÷ mean of 11th to 40th": lambda d: d[:, 0] / d[:, 11:41].mean(axis=1),
    }
    click.echo(f"\n{'every entry an asset':<44}{'R@1':>8}{'at 1 %':>9}{'at 0.1 %':>10}")
    for nprobe in (1, 16):
        (copies, found), (unrelated, _) = (
            search_many(contents.codec, contents.index, f, nprobe, DEPTH) for f in (measured.copies, measured.edited)
        )
        ok = found[:, 0] == right
        for name, form in forms.items():
            own, others = (form(np.where(d > 1e30, 1.0, d)) for d in (copies, unrelated))
            matched = [np.mean(ok & (own <= np.quantile(others, fpr, method="lower"))) for fpr in FPRS]
            click.echo(f"{name + f', nprobe {nprobe}':<44}{ok.mean():>8.3f}{matched[0]:>9.3f}{matched[1]:>10.3f}")


def _text(matched: np.ndarray) -> str:
    low, high = wilson(int(matched.sum()), len(matched))
    return f"{matched.mean():.2%} ({low:.2%} to {high:.2%})"


if __name__ == "__main__":
    main()
