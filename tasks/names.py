"""Names that two processes must spell alike: tasks, queues, Redis keys, object keys; and which names are allowed."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Final

from tasks.errors import InvalidAssetId, InvalidCollectionName, InvalidKey

TASK_ACTIVATE: Final = "aii.activate"
TASK_QUERY: Final = "aii.query"
TASK_COMPACT: Final = "aii.compact"
TASK_EXTRACT: Final = "aii.extract"

QUEUE_QUERY: Final = "query"
QUEUE_ACTIVATE: Final = "activate"
QUEUE_INDEX: Final = "index"
QUEUES: Final = (QUEUE_QUERY, QUEUE_ACTIVATE, QUEUE_INDEX)

DIGEST_PATTERN: Final = r"^[0-9a-f]{64}$"
JOB_ID_PATTERN: Final = r"^[0-9a-f]{32}$"
# No slash, no leading dot: a name can never leave its folder, be hidden, or be empty.
ASSET_ID_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
META_KEY_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
COLLECTION_PATTERN: Final = r"^[a-z0-9][a-z0-9-]{0,62}$"
_KEY = re.compile(r"^(?=.{1,512}$)[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$")


def sha256_hex(data: bytes) -> str:
    """The digest by which originals and objects are named: 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def canonical_json(value: Any) -> bytes:
    """The same bytes for the same value (sorted keys, no spaces), so that it can be hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def check_asset_id(asset_id: str) -> str:
    """Return `asset_id` unchanged, or raise InvalidAssetId."""
    if not re.fullmatch(ASSET_ID_PATTERN, asset_id) or ".." in asset_id:
        raise InvalidAssetId(
            f"asset_id {asset_id[:140]!r} cannot be used: 1 to 128 letters, digits, '.', '_' or '-', "
            "beginning with a letter or digit and without '..'."
        )
    return asset_id


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


def protected_key(collection: str, asset_id: str, extension: str) -> str:
    """Key of an asset's protected image in its bucket."""
    return check_key(f"{collection}/{asset_id}.{extension}")


def result_key(job_id: str) -> str:
    """Key of a job's result document in its bucket."""
    return check_key(f"{job_id}.json")


def journal_stream(collection: str) -> str:
    """Redis stream of a collection's additions and removals."""
    return f"aii:journal:{collection}"


def worker_presence(worker: str) -> str:
    """Redis key of a warm worker's note, which expires unless it is renewed."""
    return f"aii:worker:{worker}"
