"""``aii index build``, ``plan`` and ``info``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tasks.command_line import Command, progress_bar
from tasks.errors import CollectionExists, CollectionMissing, InvalidRequest
from tasks.settings import load_settings, state_dir
from workers.index.collection.opened import Opened, open_collection

if TYPE_CHECKING:
    from workers.extractors.base import Extractor
    from workers.index.collection.manifest import Manifest

__all__ = ["build", "info", "plan"]

_name = click.argument("name")
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.command(cls=Command)
@_name
@click.option(
    "--images", "sources", multiple=True, required=True, metavar="DIR|TAR|s3://BUCKET[/FOLDER]",
    help="Where the images are (of buckets, those of AII_BUCKET_…); may be given again.",
)  # fmt: skip
@click.option("--factory", help="FAISS factory string, such as IVF4096,PQ8x8; default: by the number of images.")
@click.option("--extractor", help="Name or address of an extractor; default: AII_EXTRACTOR, or `compact`.")
@click.option(
    "--fpr",
    default=0.01,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of unrelated images that may pass for a match.",
)
@click.option("--here", is_flag=True, help="Extract in this process; default: as jobs that all workers share.")
def build(
    name: str, sources: tuple[str, ...], factory: str | None, extractor: str | None, fpr: float, here: bool
) -> None:
    """Build the collection NAME from images: they become its first assets, named by the sha256 of their files.

    Run it again after an interruption, and it goes on. Workers with the same extractor serve the collection at once.
    """
    from workers.extractors.registry import load_extractor, pick_device  # noqa: PLC0415  # loads torch
    from workers.index.maintenance import build as building  # noqa: PLC0415

    settings = load_settings()
    opened = open_collection(settings, name, create_buckets=True)
    _refuse_an_existing(opened)
    _refuse_missing(sources, here)
    loaded = load_extractor(extractor or settings.extractor, pick_device(settings.device), opened.store)
    extract = _extracted_here if here else _extracted_by_workers
    with extract(opened, loaded, sources) as (assets, features, skipped):
        for line in skipped:
            click.echo(f"skipped  {line}", err=True)
        if not assets:
            raise InvalidRequest(f"There is no image that can be read in {', '.join(sources)}.")
        chosen = factory or building.suggested_factory(len(assets), loaded.identity.dimension)
        click.echo(f"Training {chosen} on {len(assets):,} images …", err=True)
        first, codes = building.prepared(name, chosen, loaded.identity, features, fpr)
        with opened.writing() as held:
            _refuse_an_existing(opened)  # somebody else may have built it meanwhile
            manifest = building.publish_first(opened.files, opened.journal, first, assets, codes, held.check)
    click.echo(
        f"Collection {name}: {len(assets):,} images ({len(skipped)} skipped), {chosen}, extractor "
        f"{manifest.extractor.name}, {_threshold(manifest)}."
    )


def _threshold(manifest: Manifest) -> str:
    if manifest.threshold is None:
        return "no threshold: there were too few images to calibrate one"
    return f"threshold {manifest.threshold:.4f} at a false-positive rate of {manifest.threshold_fpr}"


_Extracted = tuple[list[str], Any, list[str]]  # assets, features (N, D), a line for each skipped image


@contextmanager
def _extracted_here(opened: Opened, extractor: Extractor, sources: tuple[str, ...]) -> Iterator[_Extracted]:
    """Extract in this process; what was done is kept until the collection is published."""
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
    """Extract as jobs; the features are deleted once the collection is published."""
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
    """How many images the sources have, when that can be known without reading a bucket."""
    from workers.images.folders import listed_images  # noqa: PLC0415

    if any(source.startswith("s3://") for source in sources):
        return None
    return sum(1 for source in sources for _ in listed_images(Path(source)))


@click.command(cls=Command)
@click.option("--images", required=True, type=click.IntRange(1), help="How many images are expected.")
@click.option("--dimension", default=512, show_default=True, type=click.IntRange(1), help="Of the features.")
@click.option("--bytes", "max_bytes", type=click.IntRange(1), help="Most bytes of code for an image.")
@click.option("--ms", "max_ms", type=click.FloatRange(0, min_open=True), help="Most milliseconds for a search.")
@_json
def plan(images: int, dimension: int, max_bytes: int | None, max_ms: float | None, as_json: bool) -> None:
    """Propose a factory string for an expected number of images."""
    from workers.index.codec.plan import measure_costs, propose  # noqa: PLC0415  # loads torch and FAISS

    proposal = propose(images, dimension, measure_costs(dimension), max_bytes, max_ms)
    if as_json:
        click.echo(proposal.model_dump_json())
        return
    click.echo(f"factory  {proposal.factory}")
    click.echo(
        f"code     {proposal.code_bytes} bytes an image; the segment's files {proposal.file_bytes / 2**20:,.0f} MiB"
    )
    click.echo(f"search   about {proposal.search_ms:.3f} ms on one core of this machine, nprobe 1")
    for reason in proposal.reasons:
        click.echo(f"because  {reason}")


@click.command(cls=Command)
@_name
@_json
def info(name: str, as_json: bool) -> None:
    """Show what the collection NAME consists of."""
    opened = open_collection(load_settings(), name)
    manifest = opened.files.current()
    journal = sum(1 for _ in opened.journal.all_after(manifest.journal_entry))
    kept = [kept.generation for kept in opened.files.generations()]
    pinned, count = manifest.extractor, sum(part.count for part in manifest.segments)
    size = opened.files.size(manifest)
    if as_json:
        click.echo(json.dumps(manifest.model_dump() | {"kept": kept, "journal_length": journal, "bytes": size}))
        return
    click.echo(f"collection  {manifest.collection}, generation {manifest.generation} of {manifest.created_at}")
    click.echo(f"kept        generations {', '.join(map(str, kept))}")
    click.echo(f"index       {manifest.factory}")
    click.echo(f"extractor   {pinned.name}, {pinned.dimension}-d, sha256 {pinned.sha256}")
    click.echo(f"images      {count:,} in {len(manifest.segments)} segments, {journal:,} changes in the journal")
    click.echo(f"files       {size:,} bytes, {size / max(count, 1):.1f} an image")
    click.echo(f"verdict     {_threshold(manifest)}, at nprobe 1")


def _refuse_an_existing(opened: Opened) -> None:
    try:
        generation = opened.files.current().generation
    except CollectionMissing:
        return
    raise CollectionExists(
        f"There is a collection {opened.name!r} already (generation {generation}): choose another name."
    )


def _refuse_missing(sources: tuple[str, ...], here: bool) -> None:
    for source in sources:
        if source.startswith("s3://"):
            if here:
                raise click.UsageError(f"{source} is read by workers only: leave --here out.")
        elif not Path(source).exists():
            raise click.UsageError(f"There is no folder or tar file {source}.")
