"""``aii index``: build collections and look at them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tasks.errors import CollectionExists, CollectionMissing, InvalidRequest
from tasks.names import check_collection
from tasks.settings import Settings, load_settings, state_dir
from tasks.storage import ObjectStore

if TYPE_CHECKING:
    from workers.index.manifest import CollectionStore


@click.group()
def index() -> None:
    """Build collections, and look at them."""


@index.command()
@click.argument("name")
@click.option(
    "--images",
    "sources",
    multiple=True,
    required=True,
    type=click.Path(exists=True, path_type=Path),
    help="Folder or tar file of images; may be given again.",
)
@click.option("--factory", help="FAISS factory string, such as IVF4096,PQ8x8; default: by the number of images.")
@click.option("--extractor", help="Name or address of an extractor; default: AII_EXTRACTOR, or `compact`.")
@click.option(
    "--fpr",
    default=0.01,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of unrelated images that may pass for a match.",
)
def build(name: str, sources: tuple[Path, ...], factory: str | None, extractor: str | None, fpr: float) -> None:
    """Build the collection NAME from images: they become its first assets, named by the sha256 of their files.

    Features are kept in the state folder until the collection is published: run it again after an interruption, and it
    goes on. A worker with the same extractor serves the collection at once.
    """
    from workers.extractors.features import FeatureFolder  # noqa: PLC0415  # these load torch: not for `aii --help`
    from workers.extractors.registry import load_extractor, pick_device  # noqa: PLC0415
    from workers.images import Limits  # noqa: PLC0415
    from workers.index import build as building  # noqa: PLC0415

    settings = load_settings()
    store, files = _files(settings, name)
    _refuse_an_existing(files, name)
    loaded = load_extractor(extractor or settings.extractor, pick_device(settings.device), store)
    folder = state_dir() / "build" / name
    made = FeatureFolder(folder, loaded, sources)
    with _progress("features") as progress:
        made.fill(Limits(max_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels), progress)
    assets, skipped = made.assets, made.skipped
    for line in skipped:
        click.echo(f"skipped  {line}", err=True)
    if not assets:
        raise InvalidRequest(f"There is no image that can be read in {', '.join(map(str, sources))}.")
    chosen = factory or building.suggested_factory(len(assets))
    click.echo(f"Training {chosen} on {len(assets):,} images …", err=True)
    manifest = building.build(files, name, chosen, loaded.identity, assets, made.features, fpr)
    made.remove()
    click.echo(
        f"Collection {name}: {len(assets):,} images ({len(skipped)} skipped), {chosen}, extractor "
        f"{manifest.extractor.name}, threshold {manifest.threshold:.4f} at a false-positive rate of {fpr}."
    )


@index.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest.")
def info(name: str, as_json: bool) -> None:
    """Show what the collection NAME consists of."""
    manifest = _files(load_settings(), name)[1].current()
    if as_json:
        click.echo(manifest.model_dump_json())
        return
    pinned = manifest.extractor
    click.echo(f"collection  {manifest.collection}, generation {manifest.generation} of {manifest.created_at}")
    click.echo(f"index       {manifest.factory}")
    click.echo(f"extractor   {pinned.name}, {pinned.dimension}-d, sha256 {pinned.sha256}")
    click.echo(f"images      {sum(part.count for part in manifest.segments):,} in {len(manifest.segments)} segments")
    if manifest.threshold is not None:
        click.echo(f"threshold   {manifest.threshold:.4f} at a false-positive rate of {manifest.threshold_fpr}")


def _files(settings: Settings, name: str) -> tuple[ObjectStore, CollectionStore]:
    from workers.index.manifest import CollectionStore  # noqa: PLC0415

    store = ObjectStore.connect(settings)
    store.ensure_buckets()
    return store, CollectionStore(store, check_collection(name), state_dir() / "cache")


def _refuse_an_existing(files: CollectionStore, name: str) -> None:
    try:
        generation = files.current().generation
    except CollectionMissing:
        return
    raise CollectionExists(f"There is a collection {name!r} already (generation {generation}): choose another name.")


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int], None]]:
    """A line that counts, on a terminal; otherwise nothing."""
    shown = sys.stderr.isatty()
    yield lambda count: click.echo(f"\r{what}: {count:,} files", nl=False, err=True) if shown else None
    if shown:
        click.echo(err=True)
