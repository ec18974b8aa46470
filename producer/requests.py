"""What a producer is asked for: an image with what is to be done about it."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from tasks.errors import BadInput
from tasks.ledger.records import Resend
from tasks.messages import (
    ActivateRequest,
    ActivationOptions,
    QueryOptions,
    QueryRequest,
    Request,
    S3Object,
    Source,
    validated,
)
from tasks.names import check_asset_id, check_collection

__all__ = ["Activation", "Content", "Image", "Query", "request_of"]

# The bytes of a JPEG, PNG, WebP, TIFF, GIF, AVIF or HEIC file; a path; or a file that is open for reading bytes.
Content: TypeAlias = bytes | bytearray | memoryview | str | os.PathLike[str] | BinaryIO
# Or an image that is in S3 already: `s3://BUCKET/KEY`, as an `S3Object` too, stays where it is; a `Source` is what the
# caller has stored in the bucket of originals, or of queries, under its digest.
Image: TypeAlias = Content | S3Object | Source


@dataclass(frozen=True, kw_only=True)
class _Wish:
    collection: str | None = None
    idempotency_key: str = ""

    def fields(self, default_collection: str) -> dict[str, Any]:
        """What both kinds of requests share, checked before anything is uploaded."""
        return {
            "collection": check_collection(self.collection or default_collection),
            "idempotency_key": self.idempotency_key,
        }


@dataclass(frozen=True)
class Activation(_Wish):
    """An image to be protected and registered; the fields are those of :meth:`Producer.activate`."""

    image: Image
    asset_id: str | None = None
    options: ActivationOptions | Mapping[str, Any] | None = None
    meta: Mapping[str, str] | None = None
    again: bool = False
    name: str | None = None
    replace: bool = False

    def fields(self, default_collection: str) -> dict[str, Any]:
        """The request without its image, checked before that is uploaded; raises BadInput."""
        return super().fields(default_collection) | {
            "asset_id": None if self.asset_id is None else check_asset_id(self.asset_id),
            "options": validated(ActivationOptions, self.options or {}),
            "meta": dict(self.meta or {}),
            "nonce": uuid.uuid4().hex if self.again else "",
            "name": _own_name(self.image) if self.name is None else self.name,
            "replace": self.replace,
        }

    @staticmethod
    def message(fields: Mapping[str, Any], source: Source | S3Object) -> ActivateRequest:
        digest = source.sha256 if isinstance(source, Source) else None
        asset_id = fields["asset_id"] or digest
        return validated(ActivateRequest, {**fields, "source": source, "asset_id": asset_id})


@dataclass(frozen=True)
class Query(_Wish):
    """An image whose asset is to be found; the fields are those of :meth:`Producer.query`."""

    image: Image
    options: QueryOptions | Mapping[str, Any] | None = None

    def fields(self, default_collection: str) -> dict[str, Any]:
        """As in :class:`Activation`."""
        nonce = "" if self.idempotency_key else uuid.uuid4().hex
        options = validated(QueryOptions, self.options or {})
        return super().fields(default_collection) | {"options": options, "nonce": nonce}

    @staticmethod
    def message(fields: Mapping[str, Any], source: Source | S3Object) -> QueryRequest:
        return validated(QueryRequest, {**fields, "source": source})


def _own_name(image: Image) -> str:
    """The file's name, where the image has one."""
    if isinstance(image, S3Object):
        image = image.url
    named = image if isinstance(image, str | os.PathLike) else getattr(image, "name", None)
    return Path(named).name if isinstance(named, str | os.PathLike) else ""


def request_of(model: type[Request], stored: Resend | None) -> Request | None:
    """The request of a job in the ledger; None where that is not known, or of another version."""
    try:
        return validated(model, json.loads(stored.payload)) if stored else None
    except (BadInput, ValueError):
        return None
