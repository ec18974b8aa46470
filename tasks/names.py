"""Names that two processes must spell alike: tasks, queues, Redis keys, object keys; and which names are allowed."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from typing import Any, Final

from tasks.errors import InvalidAssetId, InvalidCollectionName, InvalidKey

TASK_ACTIVATE: Final = "aii.activate"
TASK_QUERY: Final = "aii.query"
TASK_LOOKUP: Final = "aii.lookup"
TASK_COMPACT: Final = "aii.compact"
TASK_EXTRACT: Final = "aii.extract"
TASK_EXPLAIN: Final = "aii.explain"
TASK_FEEDBACK: Final = "aii.feedback"
TASK_CARD: Final = "aii.card"

QUEUE_QUERY: Final = "query"
QUEUE_ACTIVATE: Final = "activate"
QUEUE_INDEX: Final = "index"
QUEUES: Final = (QUEUE_QUERY, QUEUE_ACTIVATE, QUEUE_INDEX)

DIGEST_PATTERN: Final = r"^[0-9a-f]{64}$"
# Ours have 32 hex digits; those of other senders are kept where they can be part of a key.
OWN_JOB_ID_PATTERN: Final = r"^[0-9a-f]{32}$"
JOB_ID_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$"
BUCKET_PATTERN: Final = r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$"
INGEST_PATTERN: Final = r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](:query)?$"
LONGEST_ASSET_ID: Final = 512
LONGEST_NAME: Final = 255
# Versions of a query that are searched beside the image as it is: mirrored; turned by 90, 180 and 270 degrees.
VIEWS: Final = ("mirror", "rotations")
META_KEY_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
# What Redis calls an entry of a stream: milliseconds since the epoch, and a number.
STREAM_ENTRY_PATTERN: Final = r"^[0-9]{1,15}-[0-9]{1,15}$"
COLLECTION_PATTERN: Final = r"^[a-z0-9][a-z0-9-]{0,62}$"
# No leading dot, no empty part: a key can never leave its folder or be hidden.
_KEY = re.compile(r"^(?=.{1,512}$)[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*$")
# Asset ids that are used in keys as they are: all that version 0.1.0 allowed.
_PLAIN_ASSET_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
_SLUG_LENGTH: Final = 40


def sha256_hex(data: bytes) -> str:
    """The digest by which originals and objects are named: 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def canonical_json(value: Any) -> bytes:
    """The same bytes for the same value (sorted keys, no spaces), so that it can be hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def check_asset_id(asset_id: str) -> str:
    """An asset id in Unicode's composed form (NFC), or raise InvalidAssetId.

    It is a name, such as ``urn:newsml:afp.com:20260101:1`` or ``folder/img 1.jpg``: any text without control characters
    and line breaks. Keys are made from it by :func:`asset_key`.
    """
    text = unicodedata.normalize("NFC", asset_id)
    if not 0 < len(text) <= LONGEST_ASSET_ID or text != text.strip() or not is_printed(text):
        raise InvalidAssetId(
            f"asset_id {asset_id[:140]!r} cannot be used: 1 to {LONGEST_ASSET_ID} characters, without control "
            "characters and without blanks at the ends."
        )
    return text


def is_printed(text: str) -> bool:
    """Whether a text has neither control characters, line breaks nor halves of surrogate pairs."""
    return not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text)


def clean_name(name: str) -> str:
    """A file's name as it is kept with an asset: of a long one, the end. What cannot be shown, as of a file
    system with another encoding, becomes U+FFFD."""
    shown = "".join(character if is_printed(character) else "\ufffd" for character in name)
    return unicodedata.normalize("NFC", shown).strip()[-LONGEST_NAME:]


def asset_key(asset_id: str) -> str:
    """The part of object keys that names an asset.

    An id that version 0.1.0 allowed is its own key. Any other becomes ``_{readable}-{32 hex digits of its sha256}``,
    which cannot be the key of another id.
    """
    if _PLAIN_ASSET_ID.match(asset_id) and ".." not in asset_id:
        return asset_id
    ascii_only = unicodedata.normalize("NFKD", asset_id).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^A-Za-z0-9]+", "-", ascii_only).strip("-")[:_SLUG_LENGTH]
    return f"_{slug}-{sha256_hex(asset_id.encode())[:32]}"


def check_collection(name: str) -> str:
    """Return `name` unchanged, or raise InvalidCollectionName."""
    if not re.fullmatch(COLLECTION_PATTERN, name):
        raise InvalidCollectionName(
            f"Collection name {name[:80]!r} cannot be used: 1 to 63 lower-case letters, digits or '-', "
            "beginning with a letter or digit."
        )
    return name


def check_key(key: str) -> str:
    """Return the object key unchanged, or raise InvalidKey: the S3 client itself would take NUL, '//' and a leading
    '/'."""
    if not _KEY.match(key) or ".." in key:
        raise InvalidKey(f"Object key {key[:140]!r} is outside the allowed alphabet.")
    return key


def protected_key(collection: str, asset_id: str, sha256: str, extension: str) -> str:
    """Key of an asset's protected image in its bucket: it names the bytes, so that no later image takes its place."""
    return check_key(f"{collection}/assets/{asset_key(asset_id)}/{sha256}.{extension}")


def result_key(job_id: str, commit: int = 1) -> str:
    """Key of a job's result document in its bucket. A job that is opened again commits again, to another key."""
    return check_key(f"{job_id}.json" if commit == 1 else f"{job_id}/{commit}.json")


def journal_stream(collection: str) -> str:
    """Redis stream of a collection's additions and removals."""
    return f"aii:journal:{collection}"


def worker_presence(worker: str) -> str:
    """Redis key of a warm worker's note, which expires unless it is renewed."""
    return f"aii:worker:{worker}"
