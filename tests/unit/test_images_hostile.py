"""Files meant to do harm: each is refused by name, quickly, without memory, and nothing else ever comes out."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tasks.errors import BadInput
from tests import images_zoo as zoo
from workers.images import Limits, decode, encode

HOSTILE = zoo.hostile()
READABLE = zoo.readable()

# Pillow warns about damaged metadata that it then ignores; so do we.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

FUZZ_ROUNDS = 3000
MOST_CPU_S = 5.0  # twenty times what the slowest of them takes: for slow processors
CODES = {"truncated", "unsupported_format", "too_large", "too_small", "animated", "empty"}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_with_its_code(name: str) -> None:
    with pytest.raises(BadInput) as refusal:
        decode(HOSTILE[name].data, zoo.LIMITS)
    assert refusal.value.code == HOSTILE[name].code


@pytest.mark.parametrize("name", HOSTILE)
def test_a_refusal_takes_no_time(name: str) -> None:
    start = time.thread_time()  # of this thread only: nothing beside it counts
    with pytest.raises(BadInput):
        decode(HOSTILE[name].data, zoo.LIMITS)
    assert time.thread_time() - start < MOST_CPU_S


def test_a_refusal_says_what_to_do_and_is_never_retried() -> None:
    for sample in HOSTILE.values():
        with pytest.raises(BadInput) as refusal:
            decode(sample.data, zoo.LIMITS)
        assert not refusal.value.retryable
        assert refusal.value.message.rstrip(".")[-1:].isalnum()
        assert len(refusal.value.message) > 30


def test_a_vast_header_spends_no_memory() -> None:
    script = (
        "import resource\n"
        "from tasks.errors import TooLarge\n"
        "from tests import images_zoo as zoo\n"
        "from workers.images import decode\n"
        "samples = [s.data for n, s in zoo.hostile().items() if 'megapixels' in n]\n"
        "assert len(samples) == 4\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for data in samples:\n"
        "    try:\n"
        "        decode(data, zoo.LIMITS)\n"
        "    except TooLarge:\n"
        "        continue\n"
        "    raise SystemExit('not refused')\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 16 * 1024  # KiB; the smallest of them would take a gigabyte


@pytest.mark.parametrize("size", [(16, 6_000_000), (6_000_000, 16)])
def test_sides_are_bounded_for_memory_is_needed_along_them(size: tuple[int, int]) -> None:
    with pytest.raises(BadInput, match="65,535") as refusal:
        decode(zoo.png(size, 1, 0, b""), Limits(max_bytes=2**24, max_pixels=10**8))
    assert refusal.value.code == "too_large"


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_a_file_cut_anywhere_is_truncated(file_format: str) -> None:
    data = zoo.saved(zoo.photo(), file_format)
    # A JPEG that lost its end alone has all its pixels.
    whole = len(data) - (2 if file_format == "JPEG" else 0)
    for length in {*range(1, 60), *range(60, whole, 41), *range(whole - 16, whole)}:
        with pytest.raises(BadInput) as refusal:
            decode(data[:length], zoo.LIMITS)
        assert refusal.value.code == "truncated", length


def test_scans_are_bounded_by_the_passes_over_all_pixels_that_they_cost() -> None:
    vast = Limits(max_bytes=2**24, max_pixels=2**28)
    progressive = zoo.saved(np.full((5000, 5000), 128, np.uint8), "JPEG", progressive=True)
    last_scan = progressive[progressive.rindex(b"\xff\xda") : -2]
    assert decode(progressive, vast).pixels.shape == (5000, 5000, 3)
    with pytest.raises(BadInput, match="more than 80 scans"):
        decode(progressive[:-2] + last_scan * 100 + b"\xff\xd9", vast)


def test_damaged_files_decode_or_are_refused_and_nothing_else_happens() -> None:
    outcomes: dict[str, int] = {}
    for data in damaged_files(FUZZ_ROUNDS):
        start = time.thread_time()
        try:
            image = decode(data, zoo.LIMITS)
            outcome = "decoded"
            assert image.pixels.shape[0] * image.pixels.shape[1] <= zoo.LIMITS.max_pixels
        except BadInput as refusal:
            outcome = refusal.code
        assert time.thread_time() - start < MOST_CPU_S
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    assert set(outcomes) <= CODES | {"decoded"}
    # The damage must reach the decoders: some files survive it, many do not.
    assert outcomes["decoded"] > FUZZ_ROUNDS // 20
    assert outcomes["truncated"] > FUZZ_ROUNDS // 10


def test_whatever_decodes_can_be_encoded_and_decoded_again() -> None:
    for data in damaged_files(300):
        try:
            image = decode(data, zoo.LIMITS)
        except BadInput:
            continue
        again = decode(encode(image.samples, image).data, zoo.LIMITS)
        assert again.pixels.shape == image.pixels.shape


def damaged_files(count: int, seed: int = 1) -> Iterator[bytes]:
    """Real files with flipped, overwritten, removed, repeated or cut bytes; half of the PNGs with mended checksums."""
    chance = random.Random(seed)
    animations = [sample.data for name, sample in HOSTILE.items() if name.startswith("animated")]
    turned = [zoo.oriented(file_format)[6] for file_format in ("JPEG", "PNG", "WEBP")]
    originals = (
        [sample.data for sample in READABLE.values() if len(sample.data) < 20_000 and sample.data != zoo.HEIC]
        + animations
        + turned
    )
    for _ in range(count):
        data = damage(bytearray(chance.choice(originals)), chance)
        yield mended(data) if chance.random() < 0.5 else data


def damage(data: bytearray, chance: random.Random) -> bytes:
    # Headers are small beside pixels but hold most of what can go wrong.
    reach = chance.choice([64, 700, len(data)])
    for _ in range(chance.choice([1, 1, 3, 20])):
        at = chance.randrange(min(reach, len(data)))
        kind = chance.randrange(5)
        if kind == 0:
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            data[at] = chance.choice([0x00, 0x01, 0x7F, 0x80, 0xFF])
        elif kind == 2:
            del data[at : at + chance.randrange(1, 9)]
        elif kind == 3:
            data[at:at] = data[at : at + chance.randrange(1, 40)]
        else:
            data[at : at + 4] = chance.randbytes(4)
        if len(data) < 2:
            break
    return bytes(data[: chance.randrange(1, len(data) + 1)] if chance.random() < 0.1 else data)


def mended(data: bytes) -> bytes:
    """The same PNG with right checksums, so that the damage gets past them; anything else unchanged."""
    if not data.startswith(zoo.PNG_SIGNATURE):
        return data
    out, position = zoo.PNG_SIGNATURE, len(zoo.PNG_SIGNATURE)
    while position + 12 <= len(data):
        length = min(int.from_bytes(data[position : position + 4], "big"), len(data) - position - 12)
        out += zoo.chunk(data[position + 4 : position + 8], data[position + 8 : position + 8 + length])
        position += 12 + length
    return out
