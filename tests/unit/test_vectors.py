"""Feature vectors on their way into a message."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from producer.vectors import packed
from tasks.errors import InvalidRequest
from tasks.messages import LookupRequest, Source, validated


def test_arrays_and_lists_are_packed_alike() -> None:
    array = np.random.default_rng(0).standard_normal((3, 5))
    wanted = array.astype("<f4").tobytes()
    for given in (array, array.astype(np.float32), array.tolist(), tuple(map(tuple, array.tolist()))):
        vectors = packed(given)
        assert (vectors.data, vectors.count, vectors.dimension) == (wanted, 3, 5)


@pytest.mark.parametrize(
    "odd", [[], [[]], [[1.0], [1.0, 2.0]], [["a"]], [1.0, 2.0], None, "ab", [[None]], np.zeros((1_001, 1))],
    ids=["none", "empty", "uneven", "text", "flat", "nothing", "string", "none within", "too many"],
)  # fmt: skip
def test_what_is_no_table_of_numbers_is_refused(odd: Any) -> None:
    with pytest.raises(InvalidRequest):
        packed(odd)


def test_a_lookup_takes_no_views() -> None:
    source = Source(sha256="0" * 64, size=4)
    asked = {"collection": "starter", "source": source, "vectors": 1, "dimension": 1, "nonce": "a"}
    with pytest.raises(InvalidRequest, match="a vector has none"):
        validated(LookupRequest, asked | {"options": {"views": ["mirror"]}})
