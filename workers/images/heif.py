"""AVIF and HEIC: read as phones write them, published as JPEG, or as PNG where they are transparent."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import accumulate, pairwise
from typing import Any, Final

import numpy as np
from PIL import Image
from PIL.AvifImagePlugin import AvifImageFile

from tasks.errors import AnimatedImage, TruncatedImage, UnsupportedFormat
from workers.images import heic_reader
from workers.images.coding import LOSSLESS_PNG, standard_jpeg
from workers.images.colour import alpha_of, own_samples
from workers.images.metadata import MANIFEST_LOST, Blocks
from workers.images.opened import Opened
from workers.images.transfer import check_not_hdr

__all__ = ["heif_size", "open_avif", "open_heic"]

Size = tuple[int, int]

_QUALITY: Final = 95
_DECODING_S: Final = 60
# Properties of the pictures in the file (ISO 14496-12, 23008-12): the size, and what the colours are. They stand at the
# beginning; a box that only looks like one can but make a check stricter.
_PROPERTIES_BYTES: Final = 1 << 20
_SIZE: Final = re.compile(rb"ispe\0\0\0\0(.{4})(.{4})", re.DOTALL)
_COLOURS: Final = re.compile(rb"colrnclx(..)(..)(..)", re.DOTALL)
# The bits of each channel; the first one decides.
_BITS: Final = re.compile(rb"pixi\0\0\0\0[\x01-\x04](.)", re.DOTALL)
_GAIN_MAPS: Final = (b"hdrgainmap", b"tmap", b"urn:iso:std:iso:ts:21496")
_EXIF_HEADER: Final = b"Exif\0\0"
_MOST_BOXES: Final = 256
# C2PA 2.2, appendix A: a box of this kind, with version, flags, its purpose, the place of another one, and the store.
_C2PA: Final = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
_FULL_BOX_BYTES, _PLACE_BYTES = 4, 8


def heif_size(data: bytes) -> Size | None:
    """(width, height) of the largest picture in the file; None where none is stated."""
    found = [
        (int.from_bytes(width, "big"), int.from_bytes(height, "big"))
        for width, height in _SIZE.findall(data, 0, _PROPERTIES_BYTES)
    ]
    return max(found, key=lambda size: size[0] * size[1], default=None)


def open_avif(data: bytes, size: Size) -> Opened:
    """An AVIF, with Pillow's own decoder, 8 bits a sample."""
    _check_colours(data)
    image = AvifImageFile(io.BytesIO(data))
    _check_size(image, size)
    if getattr(image, "is_animated", False):
        raise AnimatedImage("This AVIF is animated. Send one frame as a still image.")
    image.load()
    return _opened(image, data)


def open_heic(data: bytes, size: Size) -> Opened:
    """A HEIC, 8 bits a sample, decoded by a process of its own.

    Raises:
        UnsupportedFormat: the library for it is not installed.
        TruncatedImage: it cannot be decoded.
    """
    _check_colours(data)
    command = [sys.executable, "-I", heic_reader.__file__, str(size[0] * size[1])]
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=_DECODING_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise TruncatedImage(f"The HEIC was not decoded within {_DECODING_S} s. Convert it to JPEG.") from error
    if done.returncode == heic_reader.NOT_INSTALLED:
        raise UnsupportedFormat(
            "This is a HEIC photograph, and this worker lacks the library for it. "
            "Install the worker with the extra `heic`, or convert the photograph to JPEG and resubmit it."
        )
    if done.returncode:
        raise TruncatedImage("The HEIC is incomplete or damaged. Export the image again and resubmit it.")
    line, _, rest = done.stdout.partition(b"\n")
    header = json.loads(line)
    ends = [0, *accumulate(header["lengths"])]
    pixels, *named = (rest[start:end] for start, end in pairwise(ends))
    image = Image.frombytes(header["mode"], tuple(header["size"]), pixels)
    image.info |= {name: part for name, part in zip(("exif", "xmp", "icc_profile"), named, strict=True) if part}
    return _opened(image, data, header["pictures"])


def _check_colours(data: bytes) -> None:
    for _, transfer, _ in _COLOURS.findall(data, 0, _PROPERTIES_BYTES):
        check_not_hdr(int.from_bytes(transfer, "big"))


def _check_size(image: Any, size: Size) -> None:
    if image.size[0] * image.size[1] > size[0] * size[1]:
        raise UnsupportedFormat("The file states two sizes. Export the image again and resubmit it.")


def _opened(image: Image.Image, data: bytes, pictures: int = 1) -> Opened:
    alpha = alpha_of(image, 8)
    if alpha is not None and bool((alpha == 255).all()):
        alpha = None
    exif, xmp = image.info.get("exif"), image.info.get("xmp")
    lost = []
    head = data[:_PROPERTIES_BYTES]
    if any(name in head for name in _GAIN_MAPS):
        lost.append("HDR gain map: the published picture is the standard one, without its HDR version")
    if (bits := max((found[0] for found in _BITS.findall(head)), default=8)) > 8:
        lost.append(f"{bits} bits a sample: the published picture has 8")
    if pictures > 1:
        lost.append("further pictures after the first one")
    manifest = _manifest(data)
    if manifest is not None or b"c2pa" in head:
        lost.insert(0, MANIFEST_LOST)
    blocks = Blocks(
        exif=exif.removeprefix(_EXIF_HEADER) if exif else None,
        xmp=xmp if isinstance(xmp, bytes) else None,
        profile=image.info.get("icc_profile") or None,
        manifest=manifest,
        lost=tuple(lost),
    )
    coding = standard_jpeg(_QUALITY) if alpha is None else LOSSLESS_PNG
    return Opened(np.ascontiguousarray(own_samples(image)), alpha, blocks, coding)


def _manifest(data: bytes) -> bytes | None:
    """C2PA's manifest store."""
    for content in _uuid_boxes(data):
        if content.startswith(_C2PA):
            purpose, _, rest = content[len(_C2PA) + _FULL_BOX_BYTES :].partition(b"\0")
            if purpose == b"manifest":
                return rest[_PLACE_BYTES:]
    return None


def _uuid_boxes(data: bytes) -> Iterator[bytes]:
    """The content of each such box of the file itself (ISO 14496-12, 4.2); ends at the first box that is damaged."""
    start = 0
    for _ in range(_MOST_BOXES):
        size, kind, head = int.from_bytes(data[start : start + 4], "big"), data[start + 4 : start + 8], 8
        if size == 1:
            size, head = int.from_bytes(data[start + 8 : start + 16], "big"), 16
        if size < head or start + size > len(data):  # 0, for the rest of the file, is of the pixels
            return
        if kind == b"uuid":
            yield data[start + head : start + size]
        start += size
