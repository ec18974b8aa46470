"""Presence: the short-lived note in Redis by which a warm worker makes itself known.

aii:worker:{worker}    the note, which expires unless it is renewed
aii:workers            sorted set of workers by the time (s) of that, to find the notes without a search
aii:marks              sorted set of what happened, as JSON, by the time (s): starts of workers, new generations
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any, Final

from pydantic import ConfigDict, Field, ValidationError

from tasks.connection import RedisClient
from tasks.messages import Frozen
from tasks.names import worker_presence
from tasks.shards import ShardName

__all__ = [
    "CollectionState", "GpuState", "Mark", "WorkerNote", "announce", "marks_since", "present_workers", "withdraw",
]  # fmt: skip

_WORKERS: Final = "aii:workers"
_MARKS: Final = "aii:marks"
_FORGOTTEN_S: Final = 60
_MARKS_KEPT: Final = 500


class CollectionState(Frozen):
    """One collection as a worker holds it: `vectors` in its segments, distractors included; `journal` changes that no
    segment covers."""

    name: str
    generation: int
    factory: str
    vectors: int
    journal: int


class GpuState(Frozen):
    """What NVIDIA's management library says of a worker's GPU, which other programs may use as well.

    `utilisation` is the share (0..1) of the last moments in which it computed; memory in bytes.
    """

    model_config = ConfigDict(extra="ignore")

    utilisation: float
    memory_used_bytes: int
    memory_total_bytes: int
    temperature_c: int


class WorkerNote(Frozen):
    """What a worker reports of itself; memory in bytes, of the process and of the device (None on a CPU).

    Attributes:
        version: of this package.
        disk_free_bytes, disk_total_bytes: of the disk that holds its copies of collections.
        device_busy: the share (0..1) of the last seconds in which its device computed; None before it is known.
        idle_s: by background thread, seconds since it last came to an end of its round.
        dead: background threads that have ended, with the reason.
        shard: which part of the cells it searches, as `2/4`; "" for all.
        clock_offset_s: by how much the worker's clock is ahead of Redis'.

    Workers of an earlier version lack what has a default; what a later version adds is left out.
    """

    model_config = ConfigDict(extra="ignore")

    worker: str
    pid: int
    device: str
    extractor: str
    queues: list[str]
    batch_images: int
    memory_bytes: int
    device_memory_bytes: int | None
    collections: list[CollectionState]
    version: str = ""
    disk_free_bytes: int | None = None
    disk_total_bytes: int | None = None
    device_busy: float | None = None
    gpu: GpuState | None = None
    idle_s: dict[str, float] = Field(default_factory=dict)
    dead: dict[str, str] = Field(default_factory=dict)
    clock_offset_s: float | None = None
    shard: ShardName = ""


class Mark(Frozen):
    """Something that explains a change of the figures, `at` seconds since the epoch."""

    at: float
    kind: str
    text: str


def announce(client: RedisClient, note: WorkerNote, life_s: int) -> None:
    """Write a worker's note, or renew it."""
    now_s, micros = client.time()
    note = note.model_copy(update={"clock_offset_s": round(time.time() - now_s - micros / 1e6, 3)})
    pipe = client.pipeline(transaction=True)
    pipe.set(worker_presence(note.worker), note.model_dump_json(), ex=life_s)
    pipe.zadd(_WORKERS, {note.worker: now_s + life_s})
    pipe.zremrangebyscore(_WORKERS, "-inf", now_s - _FORGOTTEN_S)
    # The first of all workers that says so counts: a generation is new once.
    pipe.zadd(_MARKS, {json.dumps(mark): now_s for mark in _marks(note)}, nx=True)
    pipe.zremrangebyrank(_MARKS, 0, -1 - _MARKS_KEPT)
    pipe.execute()


def _marks(note: WorkerNote) -> Iterable[tuple[str, str]]:
    yield "worker", f"worker {note.worker} started" + (f", version {note.version}" if note.version else "")
    for held in note.collections:
        yield "generation", f"{held.name}: generation {held.generation}"


def marks_since(client: RedisClient, since_s: float) -> list[Mark]:
    """What happened since then, oldest first."""
    found: list[Any] = client.zrangebyscore(_MARKS, since_s, "+inf", withscores=True)
    return [mark for said, at in found if (mark := _mark_of(said, at))]


def _mark_of(said: str, at: float) -> Mark | None:
    """None for what is no such record, or one of another version."""
    try:
        kind, text = json.loads(said)
    except (ValueError, TypeError, RecursionError):
        return None
    return Mark(at=at, kind=str(kind), text=str(text))


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
