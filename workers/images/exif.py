"""EXIF: which way is up, and what of it may be published again."""

from __future__ import annotations

import logging

from PIL.ExifTags import IFD, Base
from PIL.Image import Exif

logger = logging.getLogger(__name__)

# A JPEG segment holds no more; PNG and WebP could carry megabytes, which no camera writes.
MAX_BYTES = 65_533

# Dropped from the main directory: other metadata in disguise, the profile of pixels that have been converted, and
# offsets into parts of the file that are not written again.
_DROPPED = (
    *(0x02BC, 0x83BB, 0x8649, 0x8773),  # XMP, IPTC, Photoshop, ICC profile
    *(Base.SubIFDs, Base.StripOffsets, Base.StripByteCounts, Base.JpegIFOffset, Base.JpegIFByteCount),
)
# Dropped from the Exif directory. Maker notes hold offsets that break when moved; the interoperability directory names
# a colour space; the stated width and height may have changed places.
_DROPPED_INNER = (Base.MakerNote, IFD.Interop, Base.ColorSpace, Base.ExifImageWidth, Base.ExifImageHeight)


def read_exif(block: object) -> tuple[int, bytes | None]:
    """Orientation (1–8) and the block to publish, from Pillow's ``info["exif"]``.

    The block is written anew: orientation 1, no colour space (the profile says that), everything else the owner put
    there kept (GPS too), without thumbnail (it would show the unprotected original) and maker note. A block that
    cannot be read counts as absent; damage in EXIF never rejects an image.
    """
    if not isinstance(block, bytes) or not block or len(block) > MAX_BYTES:
        return 1, None
    orientation = 1
    try:
        exif = Exif()
        exif.load(block)
        stated = exif.get(Base.Orientation)
        if isinstance(stated, int) and 1 <= stated <= 8:
            orientation = stated
        return orientation, _rewritten(exif)
    except Exception as error:  # Pillow's TIFF reader raises whatever the damage provokes
        logger.info("EXIF not readable, dropped: %s", error, extra={"exif_bytes": len(block)})
        return orientation, None


def _rewritten(exif: Exif) -> bytes | None:
    for tag in _DROPPED:
        if tag in exif:
            del exif[tag]
    inner = exif.get_ifd(IFD.Exif)
    for tag in _DROPPED_INNER:
        inner.pop(tag, None)
    if len(exif) == 0:
        return None
    exif[Base.Orientation] = 1
    written = exif.tobytes()
    return written if len(written) <= MAX_BYTES else None
