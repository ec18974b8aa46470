"""Changes of a journal, as its entries in Redis hold them; what is no change is set aside."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tasks.connection import RedisClient
from tasks.errors import RedisUnavailable
from tasks.ledger.commits import split_code
from tasks.ledger.dead_letters import DeadLetters
from workers.index.codec.codec import Codes
from workers.index.codec.stored import Rows

if TYPE_CHECKING:  # it reads files of segments, which hold what is read here
    from workers.index.collection.translation import Translation

__all__ = ["Change", "decode_code", "decode_feature", "encode_code", "read_changes"]

logger = logging.getLogger(__name__)

_LONGEST_ASSET: Final = 4_096


@dataclass(frozen=True, slots=True)
class Change:
    """An asset that was registered with a code (code_size,) uint8, or removed, when `code` is None; `feature` is its
    stored feature (row_bytes,) uint8, where the collection keeps features."""

    entry: str
    asset_id: str
    code: Codes | None
    meta: Mapping[str, str]
    feature: Rows | None = None


def encode_code(code: Codes) -> str:
    """A code, or a stored feature, as base64, its form in the journal and in result documents."""
    return base64.b64encode(code.tobytes()).decode()


def decode_code(text: str) -> Codes:
    return np.frombuffer(base64.b64decode(text, validate=True), dtype=np.uint8)


def decode_feature(text: str | None) -> Rows | None:
    """A stored feature, where there is one."""
    return decode_code(text) if text else None


def read_changes(
    client: RedisClient, stream: str, rows: Sequence[tuple[str, Mapping[str, Any]]], translation: Translation | None
) -> list[Change]:
    """The changes in some rows of a stream. A row that is none (written by another version, or by hand) becomes a dead
    letter, once for all workers, and the others are served.

    Args:
        translation: reads codes of whatever codec; None to take them as they are.
    """
    changes = []
    for entry, fields in rows:
        try:
            changes.append(_change(entry, fields, translation))
        except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
            _set_aside(client, stream, entry, fields, f"{type(error).__name__}: {error}")
    return changes


def _change(entry: str, fields: Mapping[str, Any], translation: Translation | None) -> Change:
    op, asset_id = fields["op"], fields["asset"]
    if op not in ("add", "remove"):
        raise ValueError(f"unknown operation {op[:40]!r}")
    if fields.get("v", "1") != "1":
        raise ValueError(f"unknown version {fields['v'][:40]!r}")
    if not 0 < len(asset_id.encode()) <= _LONGEST_ASSET:  # UnicodeEncodeError, a ValueError, where it is no text
        raise ValueError("no asset id")
    if op == "remove":
        return Change(entry, asset_id, None, {})
    code_text, feature, codec = split_code(fields["code"])
    code, meta = decode_code(code_text), json.loads(fields["meta"])
    if translation:
        code = translation.read(code, codec)
    if not all(isinstance(part, str) for pair in meta.items() for part in pair):
        raise ValueError("metadata that are no text")
    "".join(part for pair in meta.items() for part in pair).encode()
    return Change(entry, asset_id, code, meta, decode_feature(feature))


def _set_aside(client: RedisClient, stream: str, entry: str, fields: Mapping[str, Any], problem: str) -> None:
    reason = f"The journal's entry {entry} is no change ({problem})."
    try:
        new = DeadLetters(client).add(
            f"journal {stream}", reason, json.dumps(dict(fields)).encode(), f"{stream} {entry}"
        )
    except RedisUnavailable:
        new = True
    if new:
        logger.error("%s It is left out.", reason)
