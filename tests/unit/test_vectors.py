"""Feature vectors on their way into a message."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pytest

from producer.vectors import packed, vectors_in
from tasks.errors import InvalidRequest
from tasks.messages import LookupRequest, Source, validated


def test_arrays_and_lists_are_packed_alike() -> None:
    array = np.random.default_rng(0).standard_normal((3, 5))
    wanted = array.astype("<f4").tobytes()
    for given in (array, array.astype(np.float32), array.tolist(), tuple(map(tuple, array.tolist()))):
        vectors = packed(given)
        assert (vectors.data, vectors.count, vectors.dimension) == (wanted, 3, 5)


@pytest.mark.parametrize(
    "odd", [[], [[]], [[1.0], [1.0, 2.0]], [["a"]], [1.0, 2.0], None, "ab", [[None]], np.zeros((1_001, 1)),
     np.zeros((1, 65_537)), [[1e39]], [[float("nan")]]],
    ids=["none", "empty", "uneven", "text", "flat", "nothing", "string", "none within", "too many", "too long",
         "infinite as float32", "no number"],
)  # fmt: skip
def test_what_is_no_table_of_numbers_is_refused(odd: Any) -> None:
    with pytest.raises(InvalidRequest):
        packed(odd)


def saved(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_a_file_is_numpys_or_json_and_is_taken_in_parts() -> None:
    array = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    rows = array.tolist()
    files = [saved(array), saved(array.astype(np.float64)), json.dumps(rows, indent=1).encode()]
    for data in (*files, "\n".join(map(json.dumps, rows)).encode()):
        parts = list(vectors_in(data).split(2))
        assert [part.count for part in parts] == [2, 2, 1]
        assert b"".join(part.data for part in parts) == array.astype("<f4").tobytes()
    assert vectors_in(b"[1, 2]").dimension == 2


@pytest.mark.parametrize(
    "odd",
    [b"", b"{}", b"[", b"\xff", b"1", b"\x93NUMPY", saved(np.eye(3))[:-1], saved(np.eye(3))[:40], saved(np.ones(3)),
     saved(np.asfortranarray(np.ones((2, 3)))), saved(np.eye(2, dtype=int)), saved(np.ones((0, 3))),
     saved(np.eye(3)).replace(b"fortran", b"FORTRAN"), saved(np.eye(3)).replace(b"(3, 3), ", b"(3.,3.),")],
    ids=["empty", "object", "open", "binary", "number", "head", "short", "cut", "flat", "columns", "whole", "none",
         "without an order", "a shape of fractions"],
)  # fmt: skip
def test_what_is_no_file_of_vectors_is_refused(odd: bytes) -> None:
    with pytest.raises(InvalidRequest):
        vectors_in(odd)


def test_a_lookup_takes_no_views() -> None:
    source = Source(sha256="0" * 64, size=4)
    asked = {"collection": "starter", "source": source, "vectors": 1, "dimension": 1, "nonce": "a"}
    with pytest.raises(InvalidRequest, match="a vector has none"):
        validated(LookupRequest, asked | {"options": {"views": ["mirror"]}})
