"""``aii audit`` and ``aii takedown``. What they use is imported when they run."""

from __future__ import annotations

import getpass
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tasks.command_line import Command, echo, echo_all, one_line

if TYPE_CHECKING:
    from tasks.connection import RedisClient
    from tasks.settings import Settings

__all__ = ["audit", "takedown"]


@click.command(cls=Command)
@click.option("--after", default="0-0", help="Only entries after this one; each line begins with its name.")
@click.option("--who", help="Only of this token or account.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def audit(after: str, who: str | None, as_json: bool) -> None:
    """Print the audit log, oldest first: entry, time, who, action, collection, asset, job, detail; separated by tabs.

    It holds what tokens of the HTTP gateway submitted, looked up and removed, and takedowns. The last AII_AUDIT_ENTRIES
    are kept: `--after` lets a log collector take what is new.
    """
    from tasks.audit import AuditLog  # noqa: PLC0415
    from tasks.errors import InvalidRequest  # noqa: PLC0415
    from tasks.names import STREAM_ENTRY_PATTERN  # noqa: PLC0415

    if not re.fullmatch(STREAM_ENTRY_PATTERN, after):
        raise InvalidRequest(f"{after!r} is no entry of the audit log, such as 1780000000000-0.")
    client, settings = _connected()
    rows = (
        {"entry": entry, "time": at.isoformat(timespec="milliseconds"), **vars(said)}
        for entry, at, said in AuditLog(client, settings).entries(after)
        if not who or said.who == who
    )
    echo_all(json.dumps(row) if as_json else "\t".join(map(one_line, row.values())) for row in rows)


@click.command(cls=Command)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--dry-run", is_flag=True, help="Only list what would be removed.")
def takedown(images: tuple[str, ...], dry_run: bool) -> None:
    """Remove all assets, of every collection, whose original or protected file is IMAGE: a file, or the SHA-256 of one.

    Prints collection and asset id of each, separated by a tab. From the next query on, they are not found. Their files
    stay until `aii index purge`, and the image may be activated again. What cannot be read, as it is damaged, is told
    when the others are removed: there may be more assets then. Assets that version 0.1.0 activated are found by
    their protected file, or when they are named by their original's digest.
    """
    from tasks.assets.takedown import Takedown  # noqa: PLC0415
    from tasks.audit import AuditEntry, AuditLog  # noqa: PLC0415
    from tasks.storage import ObjectStore  # noqa: PLC0415

    client, settings = _connected()
    takedowns, log = Takedown(client, ObjectStore.connect(settings)), AuditLog(client, settings)
    found = {sha256: takedowns.find(sha256) for sha256 in map(_digest_of, images)}
    for sha256, of_image in found.items():
        for name in of_image.assets:
            if not dry_run:
                takedowns.remove(name)
                log.add(AuditEntry(f"aii {_account()}", "takedown", name.collection, name.asset_id, detail=sha256))
            click.echo(f"{name.collection}\t{one_line(name.asset_id)}")
    for of_image in found.values():
        of_image.check()
    for sha256, of_image in found.items():
        if not of_image.assets:
            echo(f"No asset is registered of the image {sha256}.", err=True)


def _digest_of(image: str) -> str:
    from tasks.errors import NotFound  # noqa: PLC0415
    from tasks.names import DIGEST_PATTERN, sha256_hex  # noqa: PLC0415

    if re.fullmatch(DIGEST_PATTERN, image.lower()):
        return image.lower()
    try:
        return sha256_hex(Path(image).read_bytes())
    except OSError as error:
        raise NotFound(f"{image} is no SHA-256, and no file that can be read: {error.strerror}.") from error


def _account() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as in many containers
        return "?"


def _connected() -> tuple[RedisClient, Settings]:
    from tasks.connection import connect_redis  # noqa: PLC0415
    from tasks.settings import load_settings  # noqa: PLC0415

    settings = load_settings()
    return connect_redis(settings), settings
