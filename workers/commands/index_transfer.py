"""``aii index export`` and ``import``."""

from __future__ import annotations

from pathlib import Path

import click

from tasks.command_line import Command, FilePath, progress_bar
from tasks.output_files import check_output, force_option
from tasks.settings import load_settings
from workers.index.collection.opened import open_collection

__all__ = ["export", "import_file"]


@click.command(cls=Command)
@click.argument("name")
@click.argument("file", type=FilePath(dir_okay=False))
@click.option("--images", is_flag=True, help="With the protected files.")
@force_option
def export(name: str, file: Path, images: bool, force: bool) -> None:
    """Write the collection NAME to FILE (tar), for another Redis and S3: what is in its journal is compacted first.

    Originals and result documents are not part of it: copy their buckets.
    """
    from workers.index.maintenance import upkeep  # noqa: PLC0415  # loads torch and FAISS: not for `aii --help`
    from workers.index.maintenance.transfer import export_collection  # noqa: PLC0415

    check_output(file, force=force)
    opened = open_collection(load_settings(), name)
    with opened.write_lock() as lock:
        manifest = upkeep.compact(opened.files, opened.journal, lock.check)
    file.parent.mkdir(parents=True, exist_ok=True)
    members = export_collection(opened.store, opened.files, manifest, file, images=images)
    click.echo(f"Generation {manifest.generation} of {name}, {manifest.assets:,} images: {members:,} files in {file}.")


@click.command("import", cls=Command)
@click.argument("file", type=FilePath(exists=True, dir_okay=False))
def import_file(file: Path) -> None:
    """Publish the collection that `aii index export` wrote to FILE, under its own name.

    It keeps its generation, its assets and what was said of them; workers serve it at once.
    """
    from workers.index.maintenance.transfer import import_collection, manifest_in  # noqa: PLC0415

    opened = open_collection(load_settings(), manifest_in(file).collection, create_buckets=True)
    with opened.write_lock() as lock, progress_bar("result documents") as progress:
        manifest = import_collection(opened.store, opened.files, opened.journal, file, lock, progress)
    click.echo(
        f"Generation {manifest.generation} of {manifest.collection} is current, with {manifest.assets:,} images."
    )
