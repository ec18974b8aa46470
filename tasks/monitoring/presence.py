"""Presence: the short-lived note in Redis by which a warm worker makes itself known.

aii:worker:{worker}    the note, which expires unless it is renewed
aii:workers            sorted set of workers by the time (s) of that, to find the notes without a search
"""

from __future__ import annotations

from typing import Final

from pydantic import ValidationError

from tasks.connection import RedisClient
from tasks.messages import Frozen
from tasks.names import worker_presence

__all__ = ["CollectionState", "WorkerNote", "announce", "present_workers", "withdraw"]

_WORKERS: Final = "aii:workers"
_FORGOTTEN_S: Final = 60


class CollectionState(Frozen):
    """One collection as a worker holds it: `vectors` in its segments, distractors included; `journal` changes that no
    segment covers."""

    name: str
    generation: int
    factory: str
    vectors: int
    journal: int


class WorkerNote(Frozen):
    """What a worker reports of itself; memory in bytes, of the process and of the device (None on a CPU)."""

    worker: str
    pid: int
    device: str
    extractor: str
    queues: list[str]
    batch_images: int
    memory_bytes: int
    device_memory_bytes: int | None
    collections: list[CollectionState]


def announce(client: RedisClient, note: WorkerNote, life_s: int) -> None:
    """Write a worker's note, or renew it."""
    now_s, _ = client.time()
    pipe = client.pipeline(transaction=True)
    pipe.set(worker_presence(note.worker), note.model_dump_json(), ex=life_s)
    pipe.zadd(_WORKERS, {note.worker: now_s + life_s})
    pipe.zremrangebyscore(_WORKERS, "-inf", now_s - _FORGOTTEN_S)
    pipe.execute()


def withdraw(client: RedisClient, worker: str) -> None:
    """Delete a worker's note."""
    pipe = client.pipeline(transaction=True)
    pipe.delete(worker_presence(worker)).zrem(_WORKERS, worker).execute()


def present_workers(client: RedisClient) -> list[WorkerNote]:
    """The notes of all warm workers; one of another version, which cannot be read, is left out."""
    names = sorted(client.zrange(_WORKERS, 0, -1))
    texts = client.mget([worker_presence(name) for name in names]) if names else []
    notes = []
    for text in texts:
        try:
            notes.append(WorkerNote.model_validate_json(text or ""))
        except ValidationError:
            continue
    return notes
