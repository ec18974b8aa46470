"""``aii index build``, ``info`` and ``make-starter``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tasks.command_line import Command, FilePath, FiniteRange, PathText, progress_bar
from tasks.errors import CollectionExists, CollectionMissing, InvalidRequest
from tasks.messages import USUAL_NPROBE
from tasks.output_files import check_folder, force_option, refuse_existing
from tasks.settings import load_settings
from tasks.state_folder import state_dir
from workers.commands.index_options import one_json_object, stored_features
from workers.index.collection.opened import Opened, open_collection

if TYPE_CHECKING:
    from workers.extractors.base import Extractor
    from workers.index.collection.manifest import Manifest
    from workers.index.verdicts.background import Background

__all__ = ["build", "info", "make_starter"]

_name = click.argument("name")
_DEFAULT_FPR = 0.01
_CURVE_FPRS = (0.001, 0.003, 0.01, 0.03, 0.1)
_NOTHING_TO_GAIN = (
    "keeps features whole and is searched exactly: activation has nothing to gain there, and registers images "
    "unchanged. It works with codes: build from 256 images or more, or give --factory, such as PQ8x4."
)
_fpr = click.option(
    "--fpr",
    default=_DEFAULT_FPR,
    show_default=True,
    type=FiniteRange(0, 1, min_open=True, max_open=True),
    help="Share of unrelated images that may count as a match.",
)


@click.command(cls=Command)
@_name
@click.option(
    "--images", "sources", multiple=True, required=True, metavar="DIR|TAR|s3://BUCKET[/FOLDER]", type=PathText(),
    help="Where the images are (repeatable); of buckets, only the service's own.",
)  # fmt: skip
@click.option("--factory", help="FAISS factory string, such as IVF4096,PQ8x8; default: by the number of images.")
@click.option("--extractor", help="Name or address of an extractor; default: AII_EXTRACTOR, or `compact`.")
@_fpr
@click.option(
    "--background", "unrelated", multiple=True, metavar="DIR|TAR", type=FilePath(exists=True),
    help="Images that are unrelated to all of these, to calibrate verdicts by (repeatable); extracted in this "
    "process. Default: what comes with the package for `compact`, or the images themselves.",
)  # fmt: skip
@click.option(
    "--nprobe", type=click.IntRange(1, 65_536),
    help=f"Cells to search for a query that does not say.  [default: {USUAL_NPROBE}]",
)  # fmt: skip
@stored_features
@click.option("--here", is_flag=True, help="Extract in this process; default: as jobs, shared by all workers.")
def build(
    name: str,
    sources: tuple[str, ...],
    factory: str | None,
    extractor: str | None,
    fpr: float,
    unrelated: tuple[Path, ...],
    here: bool,
    **searched: Any,
) -> None:
    """Build the collection NAME from images, which become its first assets, named by the sha256 of their files.

    After an interruption, run it again: it goes on where it was. Workers with the same extractor can answer queries
    as soon as it is built. Fewer than 256 images are searched exactly (Flat), where activation has nothing to gain.
    """
    from workers.extractors.registry import load_extractor, pick_device  # noqa: PLC0415  # loads torch
    from workers.index.codec.gpu import use_gpu  # noqa: PLC0415
    from workers.index.maintenance import build as building  # noqa: PLC0415
    from workers.index.maintenance import starter  # noqa: PLC0415

    settings = load_settings()
    opened = open_collection(settings, name, create_buckets=True)
    _refuse_an_existing(opened)
    _refuse_missing(sources, here)
    loaded = load_extractor(extractor or settings.extractor, pick_device(settings.device), opened.store)
    use_gpu(loaded.device)
    background = starter.shipped_background(loaded.identity)
    if unrelated:
        background = _background(opened, loaded, unrelated)
    extract = _extracted_here if here else _extracted_by_workers
    with extract(opened, loaded, sources) as (assets, features, skipped):
        for line in skipped:
            click.echo(f"skipped  {line}", err=True)
        if not assets:
            raise InvalidRequest(f"No image in {', '.join(sources)} can be read.")
        chosen = factory or building.suggested_factory(len(assets), loaded.identity.dimension)
        click.echo(f"Training {chosen} on {len(assets):,} images …", err=True)
        new, codes = building.train_collection(
            name, chosen, loaded.identity, features, fpr, background, searched["features"]
        )
        new = replace(starter.with_usual_copies(new), nprobe=searched["nprobe"])
        with opened.write_lock() as lock:
            _refuse_an_existing(opened)  # another process may have built it meanwhile
            manifest = building.publish_first(opened.files, opened.journal, new, assets, codes, lock.check, features)
    click.echo(
        f"Collection {name}: {len(assets):,} images ({len(skipped)} skipped), {chosen}, extractor "
        f"{manifest.extractor.name}, {_threshold(manifest)}."
    )
    if new.codec.keeps_features and not new.codec.has_cells:
        click.echo(f"{chosen} {_NOTHING_TO_GAIN}", err=True)


def _threshold(manifest: Manifest) -> str:
    calibration = manifest.calibration
    if calibration is None:
        return _threshold_distance(manifest)
    between = calibration.interval(calibration.fpr, manifest.usual_nprobe, manifest.assets)
    if between is None:
        return _threshold_distance(manifest)
    low, high = between
    return (
        f"threshold {low:.3f} (score; 95% interval {low:.3f} to {high:.3f}) at a false-positive rate of "
        f"{calibration.fpr:g}, calibrated on {calibration.queries:,} {calibration.background}"
    )


def _threshold_distance(manifest: Manifest) -> str:
    from workers.index.verdicts.calibration import needed_queries  # noqa: PLC0415

    if manifest.calibration is None and manifest.threshold is not None:  # of version 0.1.0
        return f"threshold {manifest.threshold:.4f} (distance) at a false-positive rate of {manifest.threshold_fpr}"
    wanted = manifest.calibration.fpr if manifest.calibration else _DEFAULT_FPR
    return (
        f"no threshold: a false-positive rate of {wanted:g} takes {needed_queries(wanted):,} unrelated images to "
        "calibrate (--background)"
    )


def _background(opened: Opened, extractor: Extractor, sources: tuple[Path, ...]) -> Background:
    """Features of unrelated images."""
    from workers.extractors.features import FeatureFolder  # noqa: PLC0415
    from workers.images import Limits  # noqa: PLC0415
    from workers.index.verdicts.background import Background  # noqa: PLC0415

    made = FeatureFolder(state_dir() / "build" / f"{opened.name}-background", extractor, sources)
    with progress_bar("background", _listed(tuple(map(str, sources)))) as progress:
        made.fill(Limits.of(opened.settings), progress)
    features = made.features.copy()
    if not len(features):
        raise InvalidRequest(f"No image in {', '.join(map(str, sources))} can be read.")
    made.remove()
    return Background(features, len(features))


_Extracted = tuple[list[str], Any, list[str]]  # assets, features (N, D), a line for each skipped image


@contextmanager
def _extracted_here(opened: Opened, extractor: Extractor, sources: tuple[str, ...]) -> Iterator[_Extracted]:
    """Extract in this process; features are kept on disk until the collection is published, for a restart."""
    from workers.extractors.features import FeatureFolder  # noqa: PLC0415
    from workers.images import Limits  # noqa: PLC0415

    settings = opened.settings
    made = FeatureFolder(state_dir() / "build" / opened.name, extractor, [Path(source) for source in sources])
    with progress_bar("images", _listed(sources)) as progress:
        made.fill(Limits.of(settings), progress)
    yield made.assets, made.features, made.skipped
    made.remove()


@contextmanager
def _extracted_by_workers(opened: Opened, extractor: Extractor, sources: tuple[str, ...]) -> Iterator[_Extracted]:
    """Extract as jobs; the features are deleted after the collection is published."""
    from workers.index.maintenance.gather import Gatherer  # noqa: PLC0415

    path = state_dir() / "build" / f"{opened.name}.f32"
    path.parent.mkdir(parents=True, exist_ok=True)
    gatherer = Gatherer(
        opened.store, opened.ledger, opened.sender, opened.files, opened.name, extractor.identity,
        opened.settings.max_image_bytes,
    )  # fmt: skip
    with progress_bar("images", _listed(sources)) as progress:
        gathered = gatherer.gather(sources, path, progress)
    yield gathered.assets, gathered.features, gathered.skipped
    path.unlink()
    for digest in gathered.objects:
        opened.files.delete_features(digest)


def _listed(sources: tuple[str, ...]) -> int | None:
    """How many images the sources have; None when only listing a bucket could tell."""
    from workers.images.folders import listed_images  # noqa: PLC0415

    if any(source.startswith("s3://") for source in sources):
        return None
    return sum(1 for source in sources for _ in listed_images(Path(source)))


@click.command(cls=Command)
@_name
@one_json_object
def info(name: str, as_json: bool) -> None:
    """Show the state of the collection NAME: generation, index, extractor, size, journal, threshold."""
    from workers.index.maintenance.retrain import outgrown  # noqa: PLC0415  # loads FAISS

    opened = open_collection(load_settings(), name)
    manifest = opened.files.current()
    journal = sum(1 for _ in opened.journal.all_after(manifest.journal_entry))
    kept = [kept.generation for kept in opened.files.listed()]
    pinned, count = manifest.extractor, manifest.assets
    size = opened.files.size(manifest)
    if as_json:
        click.echo(json.dumps(manifest.model_dump() | {"kept": kept, "journal_length": journal, "bytes": size}))
        return
    click.echo(f"collection  {manifest.collection}, generation {manifest.generation} of {manifest.created_at}")
    click.echo(f"kept        generations {', '.join(map(str, kept))}")
    click.echo(f"index       {manifest.factory}")
    click.echo(f"extractor   {pinned.name}, {pinned.dimension}-d, sha256 {pinned.sha256}")
    click.echo(f"images      {count:,} in {len(manifest.segments)} segments, {journal:,} changes in the journal")
    if manifest.stored:
        click.echo(f"features    {manifest.features}, {manifest.stored.row_bytes} bytes an image, for exact re-ranking")
    click.echo(f"files       {size:,} bytes, {size / max(count, 1):.1f} an image")
    click.echo(f"verdict     {_threshold(manifest)}, at nprobe {manifest.usual_nprobe}")
    if reason := outgrown(manifest):
        click.echo(f"retrain     advised (aii index retrain {name}): {reason}")
    for line in _curve(manifest, count):
        click.echo(line)


def _curve(manifest: Manifest, assets: int) -> Iterator[str]:
    """False-match rates, the scores that keep them, and the share of copies found within those."""
    calibration = manifest.calibration
    if calibration is None:
        return
    copies = f"; copies of {calibration.copies_of}" if calibration.copies_of else ""
    yield f"\nfalse matches, of {calibration.background}, among {assets:,} assets{copies}"
    yield f"{'nprobe':>8}{'rate':>8}{'score':>8}{'95% interval':>18}{'copies found':>14}"
    for curve in calibration.curves:
        for rate in _CURVE_FPRS:
            between = calibration.interval(rate, curve.nprobe, assets)
            if between is not None:
                threshold, span = between[0], f"{between[0]:.3f} to {between[1]:.3f}"
                found = calibration.copies(threshold, curve.nprobe)
                share = "not measured" if found is None else f"{found:.3f}"
                yield f"{curve.nprobe:>8}{rate:>8.1%}{threshold:>8.3f}{span:>18}{share:>14}"


@click.command(cls=Command)
@click.option(
    "--references", multiple=True, required=True, metavar="DIR|TAR", type=FilePath(exists=True),
    help="The reference images (repeatable).",
)  # fmt: skip
@click.option("--factory", default="OPQ8_64,IVF256,PQ8x8", show_default=True, help="FAISS factory string.")
@_fpr
@click.option("--description", required=True, help="What the reference images are.")
@click.option("--out", type=FilePath(file_okay=False), help="Folder; default: the package's own.")
@force_option
def make_starter(
    references: tuple[Path, ...], factory: str, fpr: float, description: str, out: Path | None, force: bool
) -> None:
    """Make the files of the starter collection, which come with the package (for its maintainers)."""
    from workers.images import Limits  # noqa: PLC0415
    from workers.index.maintenance import make_starter as making  # noqa: PLC0415  # loads torch
    from workers.index.maintenance.starter import FILES, FOLDER  # noqa: PLC0415

    if out:
        check_folder(out)
    if out and not force:
        refuse_existing([out / name for name in FILES])
    limits, folder = Limits.of(load_settings()), out or FOLDER
    card = making.make_starter(references, folder, limits, factory=factory, fpr=fpr, description=description)
    click.echo(f"{card.count:,} codes in {folder}, calibrated on {card.calibration.queries:,} unrelated images.")


def _refuse_an_existing(opened: Opened) -> None:
    try:
        generation = opened.files.current().generation
    except CollectionMissing:
        return
    raise CollectionExists(f"Collection {opened.name!r} exists already (generation {generation}): choose another name.")


def _refuse_missing(sources: tuple[str, ...], here: bool) -> None:
    for source in sources:
        if source.startswith("s3://"):
            if here:
                raise click.UsageError(f"{source} can be read by workers only: omit --here.")
        elif not Path(source).exists():
            raise click.UsageError(f"There is no folder or tar file {source}.")
