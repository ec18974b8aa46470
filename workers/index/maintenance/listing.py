"""The assets of a collection, by its segments and its journal."""

from __future__ import annotations

import json
import re
from collections.abc import Collection as AnyCollection
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Final

from tasks.errors import InvalidRequest
from tasks.names import check_asset_id
from workers.index.collection.files import CollectionStore
from workers.index.collection.hidden import not_hidden, read_hidden
from workers.index.collection.journal import Change, Journal, name_in
from workers.index.collection.lookup import Lookup, find_assets
from workers.index.collection.manifest import SegmentFiles
from workers.index.collection.pinned import current_manifest
from workers.index.collection.text_table import TextTable

__all__ = ["Asset", "assets", "named_by", "which_registered"]

_SHORTENED: Final = "…"  # what a query puts in place of the rest of a digest
_DIGITS: Final = r"[0-9a-f]{8,63}"
_SHOWN: Final = 3


@dataclass(frozen=True)
class Asset:
    """One registered asset; `name` is the file's own, "" when it was registered without."""

    asset_id: str
    name: str = ""
    meta: Mapping[str, str] = field(default_factory=dict)


def assets(files: CollectionStore, journal: Journal) -> Iterator[Asset]:
    """All assets, those of the segments first."""
    tables, changes = _held(files, journal)
    for table in tables:
        for asset_id, meta in table.entries():
            if asset_id not in changes:
                yield _asset(asset_id, json.loads(meta) if meta else {})
    yield from (_asset(change.asset_id, change.meta) for change in changes.values() if change.code is not None)


def which_registered(files: CollectionStore, journal: Journal, wanted: AnyCollection[str]) -> set[str]:
    """Those of some assets that the collection holds now."""
    tables, changes = _held(files, journal)
    registered = {asset for table in tables for asset in table.those_of(wanted)}
    for change in changes.values():
        if change.asset_id in wanted:
            (registered.discard if change.code is None else registered.add)(change.asset_id)
    return registered


def named_by(files: CollectionStore, journal: Journal, words: Sequence[str]) -> list[str]:
    """The asset ids that words stand for.

    A word is an asset id; or, where there never was such an asset, the first digits of a digest, the beginning of
    another id followed by ``…`` or ``...``, as a query prints it, or a file's own name. Any other word is taken for an
    id.

    Raises:
        InvalidRequest: a word could be several assets.
        InvalidAssetId: it can be none.
    """
    whole = which_registered(files, journal, set(words))
    return [word if word in whole else _meant(files, journal, word) for word in words]


def _meant(files: CollectionStore, journal: Journal, word: str) -> str:
    """The one registered asset that a word other than an asset id names, else the word."""
    beginning = word.removesuffix("...").removesuffix(_SHORTENED)
    shortened = beginning != word
    if not beginning or (not shortened and files.removals.entry(check_asset_id(word))):
        return check_asset_id(word)
    is_beginning = shortened or re.fullmatch(_DIGITS, word)
    found = _beginning_with(files, journal, beginning) if is_beginning else []
    found = found or sorted(asset.asset_id for asset in assets(files, journal) if asset.name == word)
    if len(found) > 1:
        shown = ", ".join(found[:_SHOWN])
        raise InvalidRequest(f"{word!r} could be {len(found)} assets, such as {shown}: give the whole asset id.")
    return found[0] if found else check_asset_id(word)


def _beginning_with(files: CollectionStore, journal: Journal, beginning: str) -> list[str]:
    tables, changes = _held(files, journal)
    candidates = {t.ids[int(i)] for t in tables for i in t.ids.containing(beginning)} | set(changes)
    return sorted(a for a in which_registered(files, journal, candidates) if a.startswith(beginning))


class _Tables:
    """The tables of a segment, without its codes."""

    def __init__(self, files: CollectionStore, part: SegmentFiles) -> None:
        self.ids, self._metas = TextTable(files.fetch(part.assets)), TextTable(files.fetch(part.meta))
        self._lookup = Lookup(files.fetch(part.lookup), self.ids) if part.lookup else None
        self._hidden = read_hidden(map(files.fetch, part.hidden))

    def entries(self) -> Iterator[tuple[str, str]]:
        """Ids and metadata of the current entries."""
        return compress(zip(self.ids, self._metas, strict=True), not_hidden(len(self.ids), self._hidden))

    def those_of(self, wanted: AnyCollection[str]) -> Iterator[str]:
        """Those of some assets that have a current entry here."""
        return (self.ids[p] for p in find_assets(self.ids, self._lookup, self._hidden, wanted).tolist())


def _held(files: CollectionStore, journal: Journal) -> tuple[list[_Tables], dict[str, Change]]:
    """The tables of ids and metadata of the segments, and the latest later change of each asset."""
    manifest = current_manifest(files, journal)
    tables = [_Tables(files, part) for part in manifest.segments if not part.distractors]
    return tables, {change.asset_id: change for change in journal.all_after(manifest.journal_entry)}


def _asset(asset_id: str, meta: Mapping[str, str]) -> Asset:
    name, rest = name_in(meta)
    return Asset(asset_id, name, rest)
