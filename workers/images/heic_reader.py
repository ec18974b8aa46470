"""A program of its own that decodes one HEIC: libheif's binding crashes on some damaged files, and then this process
alone ends. Run by path (see :mod:`workers.images.heif`): it imports nothing of this project, which would load torch.

Standard input: the file. Arguments: the most pixels that are decoded. Standard output: a line of JSON with ``mode``,
``size``, how many ``pictures`` there are, and the ``lengths`` of what follows it: pixels, EXIF, XMP, ICC profile. Exit
status 4: pi-heif is missing.
"""

from __future__ import annotations

import io
import json
import sys

_MAX_MEMORY = 4 << 30
_MAX_CPU_S = 60
NOT_INSTALLED = 4


def _limit() -> None:
    try:
        import resource  # noqa: PLC0415 - not on every system
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY, _MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (_MAX_CPU_S, _MAX_CPU_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> int:
    """Decode standard input; the exit status."""
    _limit()
    data, max_pixels = sys.stdin.buffer.read(), int(sys.argv[1])
    try:
        from pi_heif import HeifImageFile  # noqa: PLC0415 - an extra of its own
    except ImportError:
        return NOT_INSTALLED
    image = HeifImageFile(io.BytesIO(data))
    if image.size[0] * image.size[1] > max_pixels:
        raise ValueError("the file states two sizes")
    image.load()
    named = (image.info.get(name) for name in ("exif", "xmp", "icc_profile"))
    parts = [image.tobytes(), *(part if isinstance(part, bytes) else b"" for part in named)]
    pictures = getattr(image, "n_frames", 1)
    lengths = [len(part) for part in parts]
    header = {"mode": image.mode, "size": image.size, "pictures": pictures, "lengths": lengths}
    sys.stdout.buffer.write(b"".join([json.dumps(header).encode(), b"\n", *parts]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
