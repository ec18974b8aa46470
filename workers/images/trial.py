"""Decoding in a process of its own (``python -m workers.images.trial``): does an image end or stall the decoder?

Only a suspect of a worker's death is tried first: starting the process takes half a second, which is nothing for
one image and too much for each. What it decodes is thrown away.
"""

from __future__ import annotations

import contextlib
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

from tasks.errors import AiiError, DeadlineExceeded, Poison, TooLarge
from workers.images.decode import decode, pixels_of
from workers.images.model import Limits

__all__ = ["try_decoding"]

_BYTES_A_PIXEL: Final = 80  # measured at 6 megapixels, 8 bits: 17 to 21 by format; 16 bits take twice as much
_SPARE_BYTES: Final = 256 * 2**20
_NO_MEMORY: Final = 3


def try_decoding(data: bytes, limits: Limits, timeout_s: float) -> None:
    """Decode in a process with bounds on its memory and time. Bad input raises nothing here: decoding it will.

    Raises:
        Poison: the decoder ended that process.
        DeadlineExceeded: it did not end in time.
        TooLarge: it took more memory than its header explains.
    """
    bounds = [str(limits.max_bytes), str(limits.max_pixels), str(limits.min_side), str(int(timeout_s) + 1)]
    command = [sys.executable, "-m", "workers.images.trial", *bounds]
    try:
        ended = subprocess.run(command, input=data, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               timeout=timeout_s, check=False)  # fmt: skip
    except subprocess.TimeoutExpired:
        raise DeadlineExceeded(f"Decoding the image took more than {timeout_s:g} s: export it again.") from None
    if ended.returncode == -signal.SIGXCPU:
        raise DeadlineExceeded(f"Decoding the image took more than {timeout_s:g} s: export it again.")
    if ended.returncode == _NO_MEMORY:
        raise TooLarge("Decoding the image takes more memory than its size explains: export it again.")
    if ended.returncode < 0:
        raise Poison(f"The image ends its decoder ({signal.Signals(-ended.returncode).name}): export it again.")


def main() -> int:
    max_bytes, max_pixels, min_side, cpu_s = map(int, sys.argv[1:])
    limits, data = Limits(max_bytes, max_pixels, min_side), sys.stdin.buffer.read()
    with contextlib.suppress(AiiError):
        _bound(pixels_of(data, limits), cpu_s)
        try:
            decode(data, limits)
        except MemoryError:
            return _NO_MEMORY
    return 0


def _bound(pixels: int, cpu_s: int) -> None:
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + pixels * _BYTES_A_PIXEL + _SPARE_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    sys.exit(main())
