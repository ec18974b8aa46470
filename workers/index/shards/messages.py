"""What shards say to each other: JSON, in which arrays are their bytes (little endian) in base64."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field

from tasks.errors import InvalidRequest
from tasks.messages import Frozen
from tasks.names import COLLECTION_PATTERN
from workers.index.codec.codec import Codes
from workers.index.codec.probes import Probe
from workers.index.codec.stack import Found
from workers.index.collection.finder import Scope, Sought
from workers.index.collection.manifest import Pointer

__all__ = ["Answer", "Place", "Question", "answer_key", "question_key", "taken_key"]


def question_key(number: str) -> str:
    """Redis key of a question, which is deleted, or expires, when no one waits for its answers any more."""
    return f"aii:search:{number}"


def answer_key(number: str) -> str:
    """Redis list of its answers; expires likewise."""
    return f"aii:search:{number}:answers"


def taken_key(number: str, shard: int) -> str:
    """Redis key that exists when a worker of this shard has taken the question; deleted before it is sent again."""
    return f"aii:search:{number}:taken:{shard}"


class Part(Frozen):
    """One :class:`Sought`: the query (T,) float32 in the space of the index, its cells (M,) int64 and the squared
    distances (M,) float32 of their centroids."""

    query: str
    cells: str
    distances: str
    k: int = Field(ge=1, le=10**7)
    where: dict[str, str] = Field(default={})
    distractors: bool = False

    @classmethod
    def of(cls, sought: Sought) -> Part:
        probe = sought.probe
        query, cells, distances = (_text(a, t) for a, t in _typed(probe))
        where, distractors = dict(sought.where), sought.distractors
        return cls(query=query, cells=cells, distances=distances, k=sought.k, where=where, distractors=distractors)

    def sought(self, queries: dict[str, Any]) -> Sought:
        """What it is, with the query from `queries`, which keeps those that were read by their texts."""
        if self.query not in queries:
            queries[self.query] = _array(self.query, "<f4")[None]
        cells, distances = _array(self.cells, "<i8"), _array(self.distances, "<f4")
        if cells.shape != distances.shape:
            raise InvalidRequest("A question of another shard has cells without distances.")
        return Sought(Probe(queries[self.query], cells[None], distances[None]), self.k, self.where, self.distractors)


class Place(Frozen):
    """An entry: the number of its segment among those of assets, and its position there."""

    number: int = Field(ge=0)
    position: int = Field(ge=0, le=10**12)


class Question(Frozen):
    """What is sought in the cells of the shards that get it, of one generation of a collection; and the place of the
    entry whose code is wanted of the shard that has it."""

    collection: str = Field(pattern=COLLECTION_PATTERN)
    pointer: Pointer
    parts: list[Part]
    place: Place | None = None

    @classmethod
    def of(cls, scope: Scope, sought: Sequence[Sought], place: Place | None = None) -> Question:
        parts = [Part.of(one) for one in sought]
        return cls(collection=scope.collection, pointer=scope.pointer, parts=parts, place=place)

    @property
    def sought(self) -> list[Sought]:
        """What is sought: of one query in some cells and in fewer of them, one search can find both."""
        queries: dict[str, Any] = {}
        return [part.sought(queries) for part in self.parts]


class Answer(Frozen):
    """What a shard found: for each part the numbers of segments (M,) int64, the positions there (M,) int64 and the
    distances (M,) float32. None when it answers from another generation, or could not search. The code is that of the
    entry that was asked about, if this shard has it."""

    shard: int
    pointer: Pointer
    found: list[tuple[str, str, str]] | None
    code: str | None = None

    @classmethod
    def of(cls, shard: int, pointer: Pointer, found: Sequence[Found] | None, code: Codes | None = None) -> Answer:
        if found is None:
            return cls(shard=shard, pointer=pointer, found=None)
        texts = [(_text(n, "<i8"), _text(p, "<i8"), _text(d, "<f4")) for n, p, d in found]
        return cls(shard=shard, pointer=pointer, found=texts, code=None if code is None else _text(code, "<u1"))

    @property
    def code_bytes(self) -> Codes | None:
        """The code (code_size,)."""
        code: Codes | None = None if self.code is None else _array(self.code, "<u1")
        return code

    def arrays(self) -> list[Found]:
        """What was found."""
        found = [(_array(n, "<i8"), _array(p, "<i8"), _array(d, "<f4")) for n, p, d in self.found or []]
        if any(len({len(column) for column in columns}) != 1 for columns in found):
            raise InvalidRequest("An answer of another shard has columns of different lengths.")
        return found


def _typed(probe: Probe) -> list[tuple[Any, str]]:
    return [(probe.query, "<f4"), (probe.cells, "<i8"), (probe.distances, "<f4")]


def _text(array: Any, dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(array, dtype=dtype).tobytes()).decode()


def _array(text: str, dtype: str) -> Any:
    try:
        return np.frombuffer(base64.b64decode(text, validate=True), dtype=dtype)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest(f"A message of another shard cannot be read: {error}") from error
