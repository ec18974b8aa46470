"""``aii index remove``, ``compact``, ``rollback``, ``repair``, ``delete``, ``verify`` and ``audit``."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import click

from tasks.command_line import EXIT_FAILED, Command, progress_bar
from tasks.names import check_asset_id
from tasks.settings import load_settings
from workers.index.collection.opened import open_collection

__all__ = ["audit", "compact", "delete", "remove", "repair", "rollback", "verify"]

_name = click.argument("name")


@click.command(cls=Command)
@_name
@click.argument("assets", nargs=-1, required=True, metavar="ASSET...")
def remove(name: str, assets: tuple[str, ...]) -> None:
    """Take assets out of the collection NAME: the next query on any worker does not find them any more.

    Originals, protected images and result documents stay. An asset that was removed is registered again by
    `aii activate --again`.
    """
    from workers.index.maintenance import upkeep  # noqa: PLC0415  # loads torch and FAISS: not for `aii --help`

    opened = open_collection(load_settings(), name)
    for asset in assets:
        check_asset_id(asset)
    known = upkeep.standing(opened.files, opened.journal, assets)
    for asset in assets:  # one that is not there as well: Redis may have been emptied, and a repair bring it back
        upkeep.remove(opened.files, opened.journal, asset)
    click.echo(f"{len(known)} assets removed from {name}.")
    for asset in sorted({*assets} - known):
        click.echo(f"not there  {asset}", err=True)
    if len(known) < len({*assets}):
        sys.exit(EXIT_FAILED)


@click.command(cls=Command)
@_name
def compact(name: str) -> None:
    """Write the journal of the collection NAME into its next generation. Workers do this by themselves when it has
    grown to AII_COMPACT_AFTER changes."""
    from workers.index.maintenance import upkeep  # noqa: PLC0415

    opened = open_collection(load_settings(), name)
    before = opened.files.current().generation
    with opened.writing() as held:
        manifest = upkeep.compact(opened.files, opened.journal, held.check)
    if manifest.generation == before:
        click.echo(f"The journal of {name} is empty: generation {before} stays.")
        return
    count = sum(part.count for part in manifest.segments)
    click.echo(f"Generation {manifest.generation} of {name} is in force, with {count:,} images.")


@click.command(cls=Command)
@_name
@click.option("--to", "number", type=click.IntRange(1), help="A kept generation; default: the one before.")
def rollback(name: str, number: int | None) -> None:
    """Go back to the files of an earlier generation of the collection NAME. What was registered or removed since is
    in the journal, and stays so."""
    from workers.index.maintenance import upkeep  # noqa: PLC0415

    opened = open_collection(load_settings(), name)
    with opened.writing() as held:
        wanted = number or opened.files.current().generation - 1
        manifest = upkeep.rollback(opened.files, opened.journal, wanted, held.check)
    click.echo(f"Generation {manifest.generation} of {name} is in force, with the files of generation {wanted}.")


@click.command(cls=Command)
@_name
def repair(name: str) -> None:
    """Register and remove again what the store knows and the collection NAME does not: after Redis was emptied."""
    from workers.index.maintenance import repair as repairing  # noqa: PLC0415

    opened = open_collection(load_settings(), name)
    with opened.writing(), progress_bar("result documents") as progress:
        repaired = repairing.repair(opened.store, opened.files, opened.journal, progress)
    if repaired.unreadable:
        click.echo(f"{repaired.unreadable:,} result documents could not be read.", err=True)
    click.echo(
        f"{repaired.assets:,} assets have a result document; {repaired.registered:,} were registered again, "
        f"{repaired.removed:,} removed again."
    )
    if repaired.unreadable:
        sys.exit(EXIT_FAILED)


@click.command(cls=Command)
@_name
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete(name: str, yes: bool) -> None:
    """Take the collection NAME away, with its files and its journal.

    Originals, protected images and result documents stay; a new collection of that name does not know them.
    """
    from workers.index.maintenance import upkeep  # noqa: PLC0415

    opened = open_collection(load_settings(), name)
    count = sum(part.count for part in opened.files.current().segments)
    if not yes:
        click.confirm(f"Delete the collection {name} of {count:,} images?", abort=True)
    with opened.writing() as held:
        upkeep.delete(opened.files, opened.journal, held.check)
    click.echo(f"Collection {name} is deleted.")


@click.command(cls=Command)
@_name
@click.option("--sample", default=1_000, show_default=True, type=click.IntRange(1), help="Entries to ask for.")
@click.option(
    "--least", default=0.95, show_default=True, type=click.FloatRange(0, 1),
    help="Share of them that has to be found at nprobe 16.",
)  # fmt: skip
def verify(name: str, sample: int, least: float) -> None:
    """Read every file of the kept generations of the collection NAME in the store and check its digest; and see whether
    the collection finds what it holds. Exit status 1 when not."""
    from workers.index.collection.collection import Collection  # noqa: PLC0415
    from workers.index.maintenance import verify as check  # noqa: PLC0415

    opened = open_collection(load_settings(), name)
    collection = Collection(opened.files, opened.journal, opened.files.current().extractor)
    seen = check.verify(opened.files, opened.journal, collection, sample)
    click.echo(
        f"{seen.files} files agree with their digests: {seen.entries:,} images, {seen.journal:,} in the journal."
    )
    click.echo(f"Found {seen.found_at_1:,} of {seen.asked:,} at nprobe 1, {seen.found_at_16:,} at nprobe 16.")
    if seen.share < least:
        sys.exit(EXIT_FAILED)


@click.command(cls=Command)
@_name
@click.option("--candidate", required=True, help="The collection whose codec is to be judged.")
@click.option("--csv", "csv_path", type=click.Path(dir_okay=False, path_type=Path), help="A line for each image.")
def audit(name: str, candidate: str, csv_path: Path | None) -> None:
    """Count which published images of the collection NAME would be off their codes with the codec of another one: they
    would need to be activated again before it is promoted."""
    from workers.activation import audit  # noqa: PLC0415
    from workers.extractors.registry import load_extractor, pick_device  # noqa: PLC0415
    from workers.images import Limits  # noqa: PLC0415
    from workers.index.codec.codec import Codec  # noqa: PLC0415
    from workers.index.collection.collection import check_extractor  # noqa: PLC0415

    settings = load_settings()
    opened, other = open_collection(settings, name), open_collection(settings, candidate)
    manifest = other.files.current()
    extractor = load_extractor(settings.extractor, pick_device(settings.device), opened.store)
    for pinned in (opened.files.current(), manifest):
        check_extractor(pinned.collection, pinned.extractor, extractor.identity)
    codec = Codec.read(other.files.fetch(manifest.codec), manifest.factory)
    limits = Limits.of(settings)
    with progress_bar("published images") as progress:
        seen = list(audit.audit(opened.store, opened.files, codec, extractor, limits, progress))
    if csv_path:
        with csv_path.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["asset_id", "on_code", "on_candidate"])
            rows.writerows([s.asset_id, int(s.on_code), int(s.on_candidate)] for s in seen)
    off_now, off_then = sum(not s.on_code for s in seen), sum(not s.on_candidate for s in seen)
    click.echo(f"{len(seen):,} published images. Off their codes: {off_now:,} now, {off_then:,} with {candidate}.")
    if off_then:
        sys.exit(EXIT_FAILED)
