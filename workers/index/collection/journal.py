"""The journal: additions to a collection and removals from it, a Redis stream that every worker reads.

aii:journal:{name}             stream of changes since the oldest kept generation: late workers and rollbacks need them
aii:journal:{name}:live        hash: asset_id → its latest change that no segment covers
aii:journal:{name}:state       hash: `generation`, the newest announced; `cut`, up to which entry the stream is trimmed;
                               and what :mod:`workers.index.collection.settling` keeps
aii:journal:{name}:manifests   hash: generation → sha256 of its manifest; see :mod:`workers.index.collection.pinned`
aii:journal:{name}:unrecorded  hash: asset_id → the entry of a change that S3 has no record of yet
aii:journal:{name}:rejected    hash: what :mod:`tasks.assets.feedback` keeps; and `…:rejected-at`
aii:journal:{name}:purges      hash: asset_id → twice how often its files were purged lately; odd while that is done

aii:incarnations               hash: collection → a random name, another one each time that it is built or deleted: what
                               was made for one is not registered in the next

Activations are added by :meth:`tasks.ledger.ledger.Ledger.commit`, together with the end of their jobs.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

from tasks.assets.feedback import feedback_keys
from tasks.assets.journal import BEGINNING, MOVED, AssetJournal, entry_order, next_entry, removal
from tasks.connection import RedisClient
from tasks.ledger import commit_scripts
from tasks.ledger.commits import JobFacts, joined_code
from tasks.ledger.keys import INCARNATIONS
from workers.index.codec.codec import Codes
from workers.index.codec.stored import Rows
from workers.index.collection.changes import Change, decode_code, encode_code, read_changes
from workers.index.collection.manifest import Pointer
from workers.index.collection.settling import Settling

if TYPE_CHECKING:
    from workers.index.collection.translation import Translation

__all__ = [
    "BEGINNING",
    "MOVED",
    "Announced",
    "Change",
    "Journal",
    "Page",
    "addition",
    "decode_code",
    "encode_code",
    "entry_order",
    "journal_meta",
    "name_in",
    "named",
    "next_entry",
    "removal",
]

# Under this key, which no user's metadata can have, the file's own name is kept among an asset's metadata.
_NAME_KEY: Final = "_name"
# Of more, a collection of Python's garbage goes through all the lists in which they come, and Redis answers no one else
# while it reads them.
_PAGE: Final = 250
_ENTRY: Final = r"\d+-\d+"
# Longer than a commit takes from storing its file; an asset whose purge died is locked for as long.
_PURGE_S: Final = 1_800

# KEYS stream; ARGV entry. Redis refuses to add an entry of that name when the stream is past it already.
_CONTINUE_AFTER: Final = """
local added = redis.pcall('XADD', KEYS[1], ARGV[1], 'op', 'none')
if type(added) == 'string' then redis.call('XDEL', KEYS[1], ARGV[1]) end
"""


@dataclass(frozen=True)
class Page:
    """Some changes in a row, oldest first.

    Attributes:
        cut: the entry up to which the stream was trimmed: a reader that has not read as far has missed changes.
        last: the last entry that was read, whether it is a change or not; None at the end of the journal.
        whole: whether each entry that was read is a change.
    """

    changes: list[Change]
    cut: str
    last: str | None
    whole: bool = True


@dataclass(frozen=True)
class Announced:
    """The newest announced generation, 0 when there is none (Redis may be new); and `cut` as in :class:`Page`."""

    generation: int
    cut: str


class Journal(AssetJournal):
    """The journal of one collection. Thread-safe."""

    def __init__(self, client: RedisClient, collection: str) -> None:
        super().__init__(client, collection)
        self._collection = collection
        self._stream, self._live, self._state = self._keys.stream, self._keys.live, self._keys.state
        self._manifests = f"{self._stream}:manifests"
        self.settling = Settling(client, self._state)
        self._feedback = feedback_keys(collection)
        self._forget = client.register_script(commit_scripts.FORGET)
        self._begin_purge = client.register_script(commit_scripts.BEGIN_PURGE)
        self._end_purge = client.register_script(commit_scripts.END_PURGE)
        self._continue_after = client.register_script(_CONTINUE_AFTER)

    @property
    def client(self) -> RedisClient:
        return self._client

    def add(
        self, asset_id: str, code: Codes, meta: Mapping[str, str], unless_after: str = "",
        facts: JobFacts | None = None, feature: Rows | None = None, codec: str = "",
    ) -> str:  # fmt: skip
        """Register a code; returns the entry, the old one when the asset has this code and these metadata already.

        With `unless_after`, an asset that changed after that entry stays as it is, and "" is returned.

        Args:
            facts: of the job that made the code, where it is known.
            feature: stored feature (row_bytes,), for a collection that keeps features.
            codec: which one the code is of; see :meth:`Manifest.tag_of`.
        """
        return self._write(addition(asset_id, code, meta, unless_after, facts, feature, codec), None)

    def write_all(self, changes: Sequence[list[str]]) -> list[str]:
        """Make some changes (:func:`addition`, :func:`tasks.assets.journal.removal`); returns the entry of each, ""
        where the asset has changed since `unless_after`. When an error is raised, some may have been made: they can be
        repeated."""
        pipe = self._client.pipeline(transaction=False)
        for change in changes:
            self._register(keys=self._written_keys, args=[*change, "", ""], client=pipe)
        return [str(entry) for entry in pipe.execute()]

    def begin_purge(self, asset_id: str, keys: Sequence[str]) -> list[str]:
        """Keep an asset's activations from being committed while protected files of it are deleted; returns those of
        the files that its current state does not need."""
        found = self._begin_purge(keys=[self._live, self._keys.purges], args=[asset_id, _PURGE_S, *keys])
        return [str(key) for key in found]

    def end_purge(self, asset_id: str) -> None:
        """Let activations go on; those that stored their files before that store them again."""
        self._end_purge(keys=[self._keys.purges], args=[asset_id])

    def read_after(self, entry: str, translation: Translation | None = None) -> Page:
        """The next changes after an entry, at most a page; see :func:`read_changes` for `translation`."""
        pipe = self._client.pipeline(transaction=True)
        rows, cut = pipe.xrange(self._stream, min=f"({entry}", count=_PAGE).hget(self._state, "cut").execute()
        changes = read_changes(self._client, self._stream, rows, translation)
        return Page(changes, cut or BEGINNING, rows[-1][0] if rows else None, len(changes) == len(rows))

    def all_after(self, entry: str, translation: Translation | None = None) -> Iterator[Change]:
        """All changes after an entry."""
        while (page := self.read_after(entry, translation)).last:
            yield from page.changes
            entry = page.last

    def holds(self, entry: str) -> bool:
        """Whether an entry is there, or was trimmed because no kept generation needs it."""
        cut = self.announced().cut
        return entry_order(entry) <= entry_order(cut) or bool(self._client.xrange(self._stream, entry, entry))

    def continue_after(self, entry: str) -> None:
        """Make new entries come after this one, even when the clock of a new Redis is behind."""
        self._continue_after(keys=[self._stream], args=[entry])

    def announced(self) -> Announced:
        generation, cut = self._client.hmget(self._state, "generation", "cut")
        return Announced(int(generation or 0), cut or BEGINNING)

    def announce(self, generation: int, cut: str, covered: str) -> None:
        """Announce a new generation to the workers, and delete what is no longer needed.

        Args:
            cut: trim the stream up to this entry: no kept generation needs the changes before it.
            covered: the last entry that the generation's segments cover.
        """
        pipe = self._client.pipeline(transaction=True)
        pipe.hset(self._state, mapping={"generation": generation, "cut": cut})
        pipe.hincrby(self._state, "announcements")
        pipe.xtrim(self._stream, minid=cut, approximate=False)
        pipe.execute()
        known = ((asset, change.partition(" ")[0]) for asset, change in self._client.hscan_iter(self._live))
        entries = (pair for pair in known if re.fullmatch(_ENTRY, pair[1]))
        old = (pair for pair in entries if entry_order(pair[1]) <= entry_order(covered))
        while pairs := list(islice(old, 1_000)):
            self._forget(
                keys=[self._live, self._keys.unrecorded, self._state], args=[part for pair in pairs for part in pair]
            )

    def noted_manifests(self) -> dict[int, str]:
        """The digests of manifests that were published, by generation."""
        return {int(number): sha256 for number, sha256 in self._client.hgetall(self._manifests).items()}

    def note_manifest(self, pointer: Pointer, before: Pointer | None) -> None:
        """Note a manifest that is about to be published; and the one before it, where it is not noted yet."""
        pipe = self._client.pipeline(transaction=True)
        if before:
            pipe.hsetnx(self._manifests, str(before.generation), before.sha256)
        pipe.hset(self._manifests, str(pointer.generation), pointer.sha256).execute()

    def forget_manifests(self) -> None:
        self._client.delete(self._manifests)

    def incarnation(self) -> str:
        """Which one of the collections that had this name, one after the other; "" for one of an earlier version.

        To be asked before the manifest is read: what an older manifest made is not taken for the newer one's then.
        """
        return self._client.hget(INCARNATIONS, self._collection) or ""

    def begin_incarnation(self) -> None:
        """Say that from now on this is another collection. To be called before its first manifest is published."""
        self._client.hset(INCARNATIONS, self._collection, _incarnation())

    def delete(self) -> None:
        """Delete the journal. Jobs that registered an asset in it are not done before any more, and those that run now
        are not committed."""
        pipe = self._client.pipeline(transaction=True)
        pipe.hset(INCARNATIONS, self._collection, _incarnation())
        pipe.delete(*self._keys.all, *self._feedback, self._manifests).execute()


def addition(
    asset_id: str, code: Codes, meta: Mapping[str, str], unless_after: str, facts: JobFacts | None,
    feature: Rows | None, codec: str,
) -> list[str]:  # fmt: skip
    """An addition for :meth:`Journal.write_all`; see :meth:`Journal.add`."""
    text = facts.text() if facts else ""
    joined = joined_code(encode_code(code), None if feature is None else encode_code(feature), codec)
    return [asset_id, "add", joined, journal_meta(meta), text, unless_after]


def _incarnation() -> str:
    return uuid.uuid4().hex[:12]


def journal_meta(meta: Mapping[str, str]) -> str:
    """Metadata as the journal holds them: JSON without line breaks."""
    return json.dumps(dict(meta), sort_keys=True)


def named(meta: Mapping[str, str], name: str) -> dict[str, str]:
    """Metadata, with the file's own name among them."""
    return {**meta, _NAME_KEY: name} if name else dict(meta)


def name_in(meta: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """The file's own name, and the user's metadata."""
    return meta.get(_NAME_KEY, ""), {key: value for key, value in meta.items() if key != _NAME_KEY}
