"""``aii index list``, ``remove`` and ``purge``."""

from __future__ import annotations

import json
import sys
from itertools import islice
from typing import TYPE_CHECKING

import click

from tasks.command_line import EXIT_FAILED, Command, echo_all
from tasks.errors import CollectionMissing, CorruptSegment, InvalidCollectionName, NotReady
from tasks.settings import load_settings
from tasks.storage import Bucket, ObjectStore
from tasks.streams import confirm
from workers.index.collection.opened import open_collection

if TYPE_CHECKING:
    from workers.index.maintenance.listing import Asset

__all__ = ["list_assets", "purge", "remove"]

_name = click.argument("name")


@click.command("list", cls=Command)
@click.argument("name", required=False)
@click.option("--prefix", default="", help="Only assets whose id begins with this.")
@click.option("--limit", type=click.IntRange(1), help="How many at most; default: all.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per collection or asset, one a line.")
def list_assets(name: str | None, prefix: str, limit: int | None, as_json: bool) -> None:
    """List the assets of the collection NAME: asset id, the file's own name, metadata; separated by tabs.

    Without NAME, list the collections: name, generation, index, extractor, number of images.
    """
    if name is None:
        _list_collections(as_json)
        return
    from workers.index.maintenance.listing import assets  # noqa: PLC0415  # loads torch and FAISS: not for `aii --help`

    opened = open_collection(load_settings(), name)
    found = (asset for asset in assets(opened.files, opened.journal) if asset.asset_id.startswith(prefix))
    echo_all(_line(asset, as_json=as_json) for asset in islice(found, limit))


def _line(asset: Asset, *, as_json: bool) -> str:
    if as_json:
        return json.dumps({"asset_id": asset.asset_id, "name": asset.name, "meta": dict(asset.meta)})
    meta = " ".join(f"{key}={value}" for key, value in asset.meta.items())
    return "\t".join((asset.asset_id, asset.name, meta)).rstrip()


def _list_collections(as_json: bool) -> None:
    settings, unreadable = load_settings(), False
    for name in ObjectStore.connect(settings).folders(Bucket.COLLECTIONS):
        try:
            manifest = open_collection(settings, name).files.current()
        except (CollectionMissing, InvalidCollectionName):  # built in part only, or not ours
            continue
        except (CorruptSegment, NotReady) as error:  # the others can be listed all the same
            click.echo(f"{name}: {error} [{error.code}]", err=True)
            unreadable = True
            continue
        about = {"collection": manifest.collection, "generation": manifest.generation, "index": manifest.factory}
        about |= {"extractor": manifest.extractor.name, "images": manifest.assets}
        click.echo(json.dumps(about) if as_json else "\t".join(str(value) for value in about.values()))
    if unreadable:
        sys.exit(EXIT_FAILED)


@click.command(cls=Command)
@_name
@click.argument("assets", nargs=-1, required=True, metavar="ASSET...")
def remove(name: str, assets: tuple[str, ...]) -> None:
    """Remove assets from the collection NAME: from the next query on, no worker finds them.

    ASSET is an asset id; the first 8 or more digits of a digest; the beginning of another id followed by ..., as a
    query prints it; or a file's own name: any of them if that is one asset only. Originals, protected images and result
    documents stay. Activating a removed asset registers it again.
    """
    from workers.index.maintenance import listing, upkeep  # noqa: PLC0415

    opened = open_collection(load_settings(), name)
    wanted = listing.named_by(opened.files, opened.journal, assets)
    registered = listing.which_registered(opened.files, opened.journal, wanted)
    for asset in wanted:  # unregistered ones too: Redis may have been emptied, and a repair must not bring them back
        upkeep.remove(opened.files, opened.journal, asset)
    click.echo(f"{len(registered)} assets removed from {name}.")
    for asset in sorted({*wanted} - registered):
        click.echo(f"not there  {asset}", err=True)
    if len(registered) < len({*wanted}):
        sys.exit(EXIT_FAILED)


@click.command(cls=Command)
@_name
@click.option("--dry-run", is_flag=True, help="Only list what would be deleted.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def purge(name: str, dry_run: bool, yes: bool) -> None:
    """Delete protected files and result documents that are not current in the collection NAME any more: of assets that
    were activated again since (superseded), or removed. Originals stay."""
    from workers.index.maintenance import purge as purging  # noqa: PLC0415
    from workers.index.maintenance.records import record_for_command  # noqa: PLC0415

    opened = open_collection(load_settings(), name)
    record_for_command(opened)
    states = [state for of_asset in purging.obsolete(opened.files) for state in of_asset]
    for state in states:
        click.echo(f"{state.why:<10}  {state.record.asset_id}  job {state.record.job_id}")
    count = f"{len(states):,} earlier states"
    if dry_run or not states:
        click.echo(f"{count} of assets of {name} can be purged.")
        return
    if not yes:
        confirm(f"Delete the files and documents of {count}?")
    with opened.write_lock() as lock:
        done = purging.purge(opened.store, opened.files, opened.journal, lock.check)
    click.echo(f"{done:,} earlier states of assets of {name} are purged.")
