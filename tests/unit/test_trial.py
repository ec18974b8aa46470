"""Decoding in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tasks.errors import DeadlineExceeded, Poison
from tests.odd_decoder import crashing, environment, hanging
from tests.photographs import crops
from tests.waiting import LIMIT_S
from workers.images import Limits
from workers.images.trial import try_decoding

LIMITS = Limits(max_bytes=2**20, max_pixels=10**6)


@pytest.fixture(autouse=True)
def odd_decoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(tmp_path / "hook").items():
        monkeypatch.setenv(name, value)


def test_a_good_image_and_bad_input_pass() -> None:
    for data in (crops(1)[0], b"", b"no image", crops(1)[0][:200]):
        try_decoding(data, LIMITS, LIMIT_S)


def test_an_image_that_ends_its_decoder_is_named() -> None:
    with pytest.raises(Poison, match="SIGSEGV"):
        try_decoding(crashing(), LIMITS, LIMIT_S)


def test_an_image_that_is_never_decoded_is_given_up() -> None:
    with pytest.raises(DeadlineExceeded):
        try_decoding(hanging(), LIMITS, 3.0)


def test_starting_the_process_loads_neither_torch_nor_numba() -> None:
    code = "import sys, workers.images.trial; sys.exit(bool({'torch', 'numba'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
