"""The part of a collection's journal that concerns one asset: its latest change, and its removal. The whole journal,
as workers read it, is :mod:`workers.index.collection.journal`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from tasks.connection import RedisClient
from tasks.ledger import commit_scripts
from tasks.ledger.commits import AssetState, Seen
from tasks.ledger.keys import JournalKeys

__all__ = ["BEGINNING", "MOVED", "AssetJournal", "Live", "entry_order", "next_entry", "removal"]

BEGINNING: Final = "0-0"
MOVED: Final = "moved"


@dataclass(frozen=True)
class Live:
    """What the journal says of one asset: its latest change that no segment covers, if there is one; see
    :class:`tasks.ledger.keys.JournalKeys` for the numbers.

    Attributes:
        state: job and source are "" in a change that no job made, or one of version 0.1.0.
    """

    announcements: str
    purges: str
    state: AssetState | None
    removed: bool = False


class AssetJournal:
    """The journal of one collection, asked of one asset. Thread-safe. Entries are named ``milliseconds-number``, in
    ascending order."""

    def __init__(self, client: RedisClient, collection: str) -> None:
        self._client = client
        self._keys = JournalKeys.of(collection)
        self._register = client.register_script(commit_scripts.REGISTER)
        self._written_keys = [self._keys.stream, self._keys.live, self._keys.state, self._keys.unrecorded]
        self._recorded = client.register_script(commit_scripts.RECORDED)
        self._announcements: str | None = None  # when they were last read

    def live(self, asset_id: str) -> Live:
        """The asset's latest change that no segment covers."""
        # No transaction: the numbers are read first, and a commit that is made with them notices when one moved.
        pipe = self._client.pipeline(transaction=False)
        pipe.hget(self._keys.state, "announcements").hget(self._keys.purges, asset_id).hget(self._keys.live, asset_id)
        *numbers, change = pipe.execute()
        announcements, purges = (number or "0" for number in numbers)
        self._announcements = announcements
        if change is None:
            return Live(announcements, purges, None)
        head, _, facts = change.partition("\n")
        entry, op = head.split(" ", 2)[:2]
        said = json.loads(facts) if facts else {}
        state = AssetState(entry, *(said.get(name, "") for name in ("job", "source", "key", "sha256")))
        return Live(announcements, purges, state, removed=op == "remove")

    def assumed(self, asset_id: str) -> Live:
        """What :meth:`live` answers of an asset that never changed, mostly without asking Redis. A commit that is made
        with it notices where it is wrong: the asset's change is there, its purges are not 0, or the announcements,
        which were read before anything else, have moved."""
        return Live(self._announcements, "0", None) if self._announcements is not None else self.live(asset_id)

    def remove(self, asset_id: str, unless_after: str = "", seen: Seen | None = None) -> str:
        """Remove an asset; returns the entry of the removal. The job that the asset is of says from now on that it was.

        Args:
            unless_after: an asset that changed after this entry stays as it is, and "" is returned.
            seen: the asset's state before, for one that may have left the journal. When that is out of date, nothing is
                written and MOVED returned.
        """
        return self._write(removal(asset_id, unless_after), seen)

    def last_entry(self) -> str:
        """The newest entry there ever was, even if it was trimmed."""
        if not self._client.exists(self._keys.stream):
            return BEGINNING
        return str(self._client.xinfo_stream(self._keys.stream)["last-generated-id"])

    def recorded(self, asset_id: str, entry: str) -> None:
        """Say that S3 has a record of a change, which may leave the journal now when segments cover it."""
        self._recorded(keys=[self._keys.unrecorded], args=[asset_id, entry])

    def _write(self, change: list[str], seen: Seen | None) -> str:
        job_id = seen.state.job_id if seen and seen.state else ""
        return str(self._register(keys=self._written_keys, args=[*change, seen.announcements if seen else "", job_id]))


def removal(asset_id: str, unless_after: str) -> list[str]:
    """A removal as the script that registers takes it; see :meth:`AssetJournal.remove`."""
    return [asset_id, "remove", "", "", "", unless_after]


def entry_order(entry: str) -> tuple[int, int]:
    """A key to compare entries by."""
    milliseconds, _, number = entry.partition("-")
    return int(milliseconds), int(number)


def next_entry(entry: str) -> str:
    """The lowest possible entry after this one."""
    milliseconds, number = entry_order(entry)
    return f"{milliseconds}-{number + 1}"
