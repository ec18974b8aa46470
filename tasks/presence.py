"""Presence: the short-lived note in Redis by which a warm worker can be seen, and what it says."""

from __future__ import annotations

import redis
from pydantic import ValidationError

from tasks.connection import named_errors
from tasks.messages import Frozen
from tasks.names import worker_presence

__all__ = ["CollectionState", "WorkerNote", "present_workers"]


class CollectionState(Frozen):
    """One collection as a worker holds it: `vectors` in its segments, `journal` changes that no segment covers."""

    name: str
    generation: int
    factory: str
    vectors: int
    journal: int


class WorkerNote(Frozen):
    """What a worker says of itself; memory in bytes, of the process and of the device (None on a CPU)."""

    worker: str
    pid: int
    device: str
    extractor: str
    queues: list[str]
    batch_images: int
    memory_bytes: int
    device_memory_bytes: int | None
    collections: list[CollectionState]


def present_workers(client: redis.Redis, address: str) -> list[WorkerNote]:
    """The notes of all warm workers; one of another version, which cannot be read, is left out."""
    with named_errors(address):
        keys = sorted(client.scan_iter(match=worker_presence("*"), count=1000))
        texts = [client.get(key) for key in keys]
    notes = []
    for text in texts:
        try:
            notes.append(WorkerNote.model_validate_json(text or ""))
        except ValidationError:
            continue
    return notes
