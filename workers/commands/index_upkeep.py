"""``aii index compact``, ``rollback``, ``repair``, ``delete``, ``verify`` and ``audit``."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from typing import Final

import click

from tasks.command_line import EXIT_FAILED, Command, FilePath, FiniteRange, progress_bar
from tasks.errors import CorruptSegment
from tasks.output_files import check_output, force_option, write_output
from tasks.settings import load_settings
from tasks.streams import confirm
from workers.commands.index_published import published
from workers.index.collection.opened import Opened, open_collection

__all__ = ["audit", "compact", "delete", "duplicates", "repair", "rollback", "verify"]

_WORTH_SETTLING: Final = 10_000  # documents that a repair has read: the next one shall not read them again
_name = click.argument("name")


@click.command(cls=Command)
@_name
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list of groups.")
def duplicates(name: str, as_json: bool) -> None:
    """List the groups of near-duplicates that the build of the collection NAME found among its images: versions of one
    picture, by their exact features. They were left out of the calibration, and stay assets of their own."""
    opened = open_collection(load_settings(), name)
    digest = opened.files.current().duplicates
    groups = json.loads(opened.files.fetch(digest).read_text("utf-8")) if digest else []
    if as_json:
        click.echo(json.dumps(groups))
        return
    for group in groups:
        click.echo("  ".join(group))
    click.echo(f"{len(groups):,} groups of near-duplicates, {sum(map(len, groups)):,} images in them.", err=True)


@click.command(cls=Command)
@_name
@click.option("--whole", is_flag=True, help="Merge all segments: nothing is left of what was replaced or removed.")
def compact(name: str, whole: bool) -> None:
    """Merge the journal of the collection NAME into its next generation.

    Workers do this by themselves when the journal holds AII_COMPACT_AFTER changes. They write a small segment, and
    merge segments of similar size.
    """
    from workers.index.maintenance import upkeep  # noqa: PLC0415

    opened = open_collection(load_settings(), name)
    before = opened.files.current().generation
    with opened.write_lock() as lock:
        manifest = upkeep.compact(opened.files, opened.journal, lock.check, whole=whole)
    if manifest.generation == before:
        click.echo(f"The journal of {name} is empty: generation {before} stays.")
        return
    count = manifest.assets
    click.echo(f"Generation {manifest.generation} of {name} is current, with {count:,} images.")


@click.command(cls=Command)
@_name
@click.option(
    "--to", "number", type=click.IntRange(1),
    help="A kept generation; default: the one before, or the newest that can be read where the current one cannot.",
)  # fmt: skip
def rollback(name: str, number: int | None) -> None:
    """Go back to the files of an earlier generation of the collection NAME.

    What was registered or removed since is in the journal, and is kept.
    """
    from workers.index.maintenance import upkeep  # noqa: PLC0415

    opened = open_collection(load_settings(), name)
    with opened.write_lock() as lock:
        wanted = number or upkeep.usual_rollback(opened.files, opened.journal)
        manifest = upkeep.rollback(opened.files, opened.journal, wanted, lock.check)
    click.echo(f"Generation {manifest.generation} of {name} is current, with the files of generation {wanted}.")


@click.command(cls=Command)
@_name
@click.option("--all", "read_all", is_flag=True, help="Read documents that the index files are known to hold, too.")
def repair(name: str, read_all: bool) -> None:
    """Re-register assets of the collection NAME from their documents in S3, after Redis was emptied or S3 set back.

    Newer changes are kept. Documents that the index files are known to hold are not read: --all reads them, which is
    needed when documents were put back later than the collection, with their former times. An index file that cannot be
    opened stops the repair: see `aii index rollback`. Exit status 1 when some documents could not be read.
    """
    from workers.index.maintenance import repair as repairing  # noqa: PLC0415
    from workers.index.maintenance import upkeep  # noqa: PLC0415

    opened = open_collection(load_settings(), name)
    with opened.write_lock() as lock, progress_bar("result documents") as progress:
        repaired = repairing.repair(opened.store, opened.files, opened.journal, progress, read_all=read_all)
        if repaired.documents - repaired.passed_over >= _WORTH_SETTLING:
            upkeep.compact(opened.files, opened.journal, lock.check, settle=True)
    if repaired.unreadable:
        click.echo(f"{repaired.unreadable:,} result documents could not be read.", err=True)
    click.echo(
        f"{repaired.documents:,} result documents; {repaired.passed_over:,} of them, which the index files are known "
        "to hold, were not read."
    )
    click.echo(
        f"{repaired.assets:,} assets have a result document; {repaired.registered:,} were registered again, "
        f"{repaired.removed:,} removed again."
    )
    if repaired.unreadable:
        sys.exit(EXIT_FAILED)


@click.command(cls=Command)
@_name
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def delete(name: str, yes: bool) -> None:
    """Delete the collection NAME with its files and its journal.

    Originals, protected images and result documents stay. A new collection of that name starts without the assets;
    activations that are submitted again are done again, for it. Until it is built, they fail as collection_missing.
    """
    from workers.index.maintenance import upkeep  # noqa: PLC0415

    opened = open_collection(load_settings(), name)
    about = _size(opened)
    if not yes:
        confirm(f"Delete the collection {name}{about}?")
    with opened.write_lock() as lock:
        upkeep.delete(opened.files, opened.journal, lock.check)
    click.echo(f"Collection {name} is deleted.")


def _size(opened: Opened) -> str:
    """How large a collection is, as its deletion is confirmed; it can be deleted when damaged, too."""
    try:
        return f" of {opened.files.current().assets:,} images"
    except CorruptSegment:
        return ", whose current generation cannot be read"


@click.command(cls=Command)
@_name
@click.option("--sample", default=1_000, show_default=True, type=click.IntRange(1), help="Number of entries to search.")
@click.option(
    "--least", default=0.95, show_default=True, type=FiniteRange(0, 1),
    help="Share of them that must be found at nprobe 16.",
)  # fmt: skip
def verify(name: str, sample: int, least: float) -> None:
    """Check the files of the collection NAME in S3 against their digests, and search a sample of its entries.

    Exit status 1 when a file is damaged or too few entries are found.
    """
    from workers.index.collection.collection import Collection  # noqa: PLC0415
    from workers.index.maintenance.retrain import Current, advice  # noqa: PLC0415
    from workers.index.maintenance.verify import verify_collection  # noqa: PLC0415

    opened = open_collection(load_settings(), name)
    collection = Collection(opened.files, opened.journal, opened.files.current().extractor)
    seen = verify_collection(opened.files, opened.journal, collection, sample)
    click.echo(
        f"{seen.files} files agree with their digests: {seen.entries:,} images, {seen.journal:,} in the journal."
    )
    if seen.asked:
        click.echo(f"Found {seen.found_at_1:,} of {seen.asked:,} at nprobe 1, {seen.found_at_16:,} at nprobe 16.")
    else:
        click.echo(f"No image is in the files yet, so none was searched; first: aii index compact {name}.")
    for reason in advice(Current.open(opened.files, collection.manifest)):
        click.echo(f"Retraining is advised (aii index retrain {name}): {reason}.")
    if seen.share < least:
        sys.exit(EXIT_FAILED)


@click.command(cls=Command)
@_name
@click.option("--candidate", required=True, help="The collection whose codec is considered.")
@click.option(
    "--csv",
    "csv_path",
    type=FilePath(dir_okay=False),
    help="File for a line for each image.",
)
@force_option
def audit(name: str, candidate: str, csv_path: Path | None, force: bool) -> None:
    """Count the published images of the collection NAME that would not fit their codes with another collection's codec.

    These images have to be activated again before that codec is used. Exit status 1 when there are any.
    """
    from workers.activation.audit import audit_collection  # noqa: PLC0415  # loads torch
    from workers.extractors.registry import load_extractor, pick_device  # noqa: PLC0415
    from workers.images import Limits  # noqa: PLC0415
    from workers.index.codec.codec import Codec  # noqa: PLC0415
    from workers.index.collection.loading import check_extractor  # noqa: PLC0415

    check_output(csv_path, force=force)
    settings = load_settings()
    opened, other = open_collection(settings, name), open_collection(settings, candidate)
    manifest = other.files.current()
    extractor = load_extractor(settings.extractor, pick_device(settings.device), opened.store)
    for pinned in (opened.files.current(), manifest):
        check_extractor(pinned.collection, pinned.extractor, extractor.identity)
    codec = Codec.read(other.files.fetch(manifest.codec), manifest.factory)
    limits = Limits.of(settings)
    with published(opened, opened.files.current(), "audit") as activated, progress_bar("published images") as progress:
        seen = list(audit_collection(opened.store, opened.files, activated, codec, extractor, limits, progress))
    activated.delete()
    if csv_path:
        text = io.StringIO(newline="")
        rows = csv.writer(text)
        rows.writerow(["asset_id", "on_code", "on_candidate"])
        rows.writerows([s.asset_id, int(s.on_code), int(s.on_candidate)] for s in seen)
        write_output(csv_path, text.getvalue())
    off_now, off_then = sum(not s.on_code for s in seen), sum(not s.on_candidate for s in seen)
    click.echo(f"{len(seen):,} published images. Off their codes: {off_now:,} now, {off_then:,} with {candidate}.")
    if off_then:
        sys.exit(EXIT_FAILED)
