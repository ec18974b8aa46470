"""What the documents of every kind of job say of who made them, and with what."""

from __future__ import annotations

from tasks.messages import Digest, Frozen


class ExtractorIdentity(Frozen):
    """The network that made the features; `sha256` is of its weights file."""

    name: str
    sha256: Digest
    dimension: int


class Provenance(Frozen):
    """Who made the document, with what, and where the time went (milliseconds for this image)."""

    worker: str
    device: str
    versions: dict[str, str]
    timings_ms: dict[str, float]
    finished_at: str
