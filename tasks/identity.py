"""How a request becomes the id of its job, in any language.

Version 2: the first 32 hex digits of the SHA-256 over the request as canonical JSON (RFC 8785, JCS), with its task and
`schema_version`, without what makes no other job of it (`name`, `replace`, `source.size`), and without fields that have
their defaults, so that an option added later changes no id of an earlier request. A request with an `idempotency_key`
is named by that key and its task alone. ``tasks/schemas/vectors.json`` has requests with their ids.

Version 1, of 0.1.0, hashed Python's spelling of every field, defaults included. Its ids are still found and honoured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

import rfc8785

from tasks.names import canonical_json, sha256_hex

__all__ = ["SCHEMA_VERSION", "Fields", "job_id", "version_1_id"]

# Which fields of a message: by name, and of a part of it by the part's name and theirs.
Fields: TypeAlias = Mapping[str, Any]

SCHEMA_VERSION: Final[Literal[2]] = 2
_DIGITS: Final = 32

_FIELDS_1: Final = ("task", "collection", "source", "asset_id", "options", "meta", "nonce")
_OPTIONS_1: Final = ("steps", "learning_rate", "alpha", "attenuation", "min_psnr_db", "robust", "strip_metadata")
# Options that came before version 2: with their defaults, they were left out.
_LATER_OPTIONS_1: Final[Fields] = {"metadata": "all", "quality": None, "lossless": False}


def job_id(task: str, said: Mapping[str, Any], idempotency_key: str = "") -> str:
    """The id of a job, 32 hex digits; `said` is what the request says beside its defaults."""
    words = {"idempotency_key": idempotency_key} if idempotency_key else said
    return sha256_hex(rfc8785.dumps({**words, "schema_version": SCHEMA_VERSION, "task": task}))[:_DIGITS]


def version_1_id(request: Mapping[str, Any]) -> str | None:
    """The id that version 1 gave an activation, of which `request` has every field; None when it says something that
    version 1 had no word for."""
    given = request["options"]
    later = {name: given[name] for name, default in _LATER_OPTIONS_1.items() if given[name] != default}
    options = {name: given[name] for name in _OPTIONS_1} | later
    return sha256_hex(canonical_json({name: request[name] for name in _FIELDS_1} | {"options": options}))[:_DIGITS]
