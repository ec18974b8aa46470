"""Images made in memory for tests: every colour mode, every orientation, and files meant to do harm.

Everything is deterministic, small (a few kilobytes), and fits ``LIMITS`` unless its name says otherwise.
"""

from __future__ import annotations

import base64
import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from workers.images import Limits

Pixels = NDArray[np.uint8]

LIMITS = Limits(max_bytes=2**20, max_pixels=1_000_000)

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
ORIENTATION, EXIF_IFD, GPS_IFD, MAKER_NOTE, COLOUR_SPACE, ARTIST = 0x0112, 0x8769, 0x8825, 0x927C, 0xA001, 0x013B

# Colorants relative to D50, as ICC profiles state them; columns are red, green, blue.
SRGB_D50 = np.array([[0.4361, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]])
DISPLAY_P3_D50 = np.array([[0.5151, 0.2920, 0.1571], [0.2412, 0.6922, 0.0666], [-0.0011, 0.0419, 0.7841]])


@dataclass(frozen=True)
class Readable:
    """A file that must decode to ``pixels`` (within ``tolerance`` levels) and ``alpha``."""

    data: bytes
    pixels: Pixels
    alpha: NDArray[Any] | None = None
    tolerance: int = 0


@dataclass(frozen=True)
class Refused:
    """A file that must be refused with the error ``code`` under ``LIMITS``."""

    data: bytes
    code: str


# ---------------------------------------------------------------------------------------------------- building blocks


# A HEIC of 64 × 48 pixels of the colour (200, 40, 40) with EXIF, as libheif's heif-enc writes it; nothing here can.
HEIC = zlib.decompress(
    base64.b64decode(
        "eNpdUTtLA0EQnt0j4YoQg6hIkDwsNFqZJvURkyKgfdrjHslAzix3QRKwidjYiYXYCFa2ClbaqD/CH6CIRaoUFkGUOLt3J5qB2Xl9"
        "s7P7DQCsuL2BaDtoAYmHbln6HpouAHvxnJ4JoRTbdsePfBBo9WBG0gJ7nvI4aQZtM4QYsEXnDna6FiOnZoAGLGzhidiDLHXFfmx1"
        "Qoa4/G+uQrqLuOeqSNYXKXC47CJMe98qw5+kekzLRxv+Iamv3kd1xzMKX5C9RWF1yQZ0xTbTxO+/cmP4+p5MAOa0ArUuGyzFplMJ"
        "0OBEPUGD3D03ilRcrzI2U7ksDBNno7eru5uCjNVRXCVsssaegsdjmrCAgXCiaUaksznJYUZgH9W3dV2XnKHw4vUQe3zIgXPtiKIS"
        "+o4b78VGr6XYlRymLTuw1AYkO00v3NJSiV033z9GD9PXg+ln5TSfqw6yF2PZ3mhsgq4GzLNwcUnS80MOKbJr0ZCStVGo901PdBz4"
        "ATwoX2c="
    )
)


def photo(height: int = 48, width: int = 64) -> Pixels:
    """Smooth colour with texture and no symmetry: uint8 (height, width, 3)."""
    y, x = np.mgrid[0:height, 0:width].astype(float)
    ramps = np.stack([255 * x / width, 255 * y / height, 128 + 80 * np.sin(x / 5) * np.cos(y / 9)], axis=-1)
    texture = np.random.default_rng(7).normal(0, 6, (height, width, 1))
    return np.clip(ramps + texture, 0, 255).astype(np.uint8)


def noise(height: int, width: int, *channels: int) -> Pixels:
    return np.random.default_rng(3).integers(0, 256, (height, width, *channels), dtype=np.uint8)


def saved(image: Pixels | Image.Image, file_format: str, **options: Any) -> bytes:
    """A file of ``image`` as Pillow writes it."""
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(size: tuple[int, int], depth: int, colour_type: int, rows: bytes, *before: bytes) -> bytes:
    """A PNG by hand: ``rows`` are packed samples, each row led by its filter byte; ``before`` are chunks before it."""
    header = struct.pack(">IIBBBBB", *size, depth, colour_type, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), *before, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND")]
    return PNG_SIGNATURE + b"".join(chunks)


def rows_of(samples: NDArray[Any]) -> bytes:
    """Unfiltered PNG rows of an array of uint8 or big-endian uint16."""
    return b"".join(b"\0" + row.tobytes() for row in samples)


def with_png_chunks(data: bytes, *chunks: bytes) -> bytes:
    """``data`` with ``chunks`` put in right after IHDR."""
    return data[:33] + b"".join(chunks) + data[33:]


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def with_jpeg_segments(data: bytes, *segments: bytes) -> bytes:
    """``data`` with ``segments`` put in right after the start-of-image marker."""
    return data[:2] + b"".join(segments) + data[2:]


def tiff_block(entries: list[tuple[int, int, int, bytes]], order: str = "<", **directories: Any) -> bytes:
    """A TIFF block by hand: (tag, type, count, value or its offset) of the first directory, values after the table.

    ``exif`` adds a directory of the same kind, which is pointed to.
    """
    inner = directories.get("exif", [])
    rows = sorted([*entries, *([(EXIF_IFD, 4, 1, b"")] if inner else [])])
    start = 8
    after = start + 6 + 12 * len(rows) + (6 + 12 * len(inner) if inner else 0)
    values, tables = b"", b""
    inner_at = start + 6 + 12 * len(rows)
    for table in filter(None, (rows, inner)):
        tables += struct.pack(order + "H", len(table))
        for tag, kind, count, value in table:
            data = struct.pack(order + "L", inner_at) if tag == EXIF_IFD and table is rows else value
            if len(data) > 4:
                at = after + len(values)
                values += data + bytes(len(data) % 2)
                data = struct.pack(order + "L", at)
            tables += struct.pack(order + "HHL", tag, kind, count) + data.ljust(4, b"\0")
        tables += bytes(4)
    return (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "L", start) + tables + values


def resource(number: int, data: bytes) -> bytes:
    """One of Photoshop's image resources."""
    return b"8BIM" + struct.pack(">HHL", number, 0, len(data)) + data + bytes(len(data) % 2)


def data_set(record: int, number: int, data: bytes) -> bytes:
    """One of IPTC's data sets."""
    return struct.pack(">BBBH", 0x1C, record, number, len(data)) + data


def exif_block(orientation: int = 1) -> bytes:
    """An EXIF block, as Pillow writes it, with an artist, a GPS entry, a maker note and a colour space."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    exif[ARTIST] = "Ada"
    exif[GPS_IFD] = {1: "N"}
    exif[EXIF_IFD] = {COLOUR_SPACE: 65_535, MAKER_NOTE: b"secret of the maker"}
    return exif.tobytes()


def exif_with_thumbnail(thumbnail: bytes) -> bytes:
    """An EXIF block by hand: an artist in the main directory, a JPEG thumbnail in the second (CIPA DC-008, 4.5.5)."""
    main = struct.pack("<HHHI4sI", 1, ARTIST, 2, 4, b"Ada\0", 26)
    second = struct.pack("<HHHIIHHIII", 2, 0x0201, 4, 1, 56, 0x0202, 4, 1, len(thumbnail), 0)
    return b"Exif\0\0II*\0\x08\0\0\0" + main + second + thumbnail


# ------------------------------------------------------------------------------------------------------- ICC profiles


def icc_profile(space: bytes, connection: bytes, device: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A version 2 ICC profile (ICC.1:2001-04, section 6): header, tag table, tags padded to four bytes."""
    table, body = b"", b""
    for name, value in tags.items():
        table += struct.pack(">4sII", name, 128 + 4 + 12 * len(tags) + len(body), len(value))
        body += value + b"\0" * (-len(value) % 4)
    size = 128 + 4 + len(table) + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"", 0x02400000, device, space, connection) + b"\0" * 12 + b"acsp"
    header += b"\0" * 28 + xyz(0.9642, 1.0, 0.8249)[8:]
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


def xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65_536)) for value in values)


def gamma_curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


def rgb_profile(colorants: NDArray[np.float64], gamma: float) -> bytes:
    """A display profile with these D50 colorants (columns) and one gamma."""
    tags = {name: xyz(*colorants[:, i]) for i, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    curves = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), gamma_curve(gamma))
    return icc_profile(b"RGB ", b"XYZ ", b"mntr", {b"wtpt": xyz(0.9642, 1.0, 0.8249), **tags, **curves})


def grey_profile(gamma: float) -> bytes:
    return icc_profile(b"GRAY", b"XYZ ", b"mntr", {b"wtpt": xyz(0.9642, 1.0, 0.8249), b"kTRC": gamma_curve(gamma)})


def black_only_cmyk_profile() -> bytes:
    """A print profile in which only black ink leaves a mark: cyan, magenta and yellow print as white paper."""
    identity = b"".join(struct.pack(">i", 65_536 * (i % 4 == 0)) for i in range(9))
    ramp = bytes(range(256))
    paper_then_black = bytes([255, 128, 128, 0, 128, 128])  # L*a*b* for K = 0 and K = 255: K is the fastest index
    lut = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + ramp * 4 + paper_then_black * 8 + ramp * 3
    return icc_profile(b"CMYK", b"Lab ", b"prtr", {b"A2B0": lut, b"A2B1": lut})


def srgb_encoded(linear: NDArray[np.float64]) -> Pixels:
    """IEC 61966-2-1: linear light 0–1 to uint8."""
    clipped = np.clip(linear, 0, 1)
    encoded = np.where(clipped <= 0.0031308, clipped * 12.92, 1.055 * clipped ** (1 / 2.4) - 0.055)
    return np.round(encoded * 255).astype(np.uint8)


def converted(pixels: Pixels, colorants: NDArray[np.float64], gamma: float) -> Pixels:
    """What ``pixels`` under :func:`rgb_profile` look like in sRGB, by the definition of a matrix profile."""
    matrix = np.linalg.inv(SRGB_D50) @ colorants
    return srgb_encoded(((pixels / 255.0) ** gamma) @ matrix.T)


# ------------------------------------------------------------------------------------------------------------ the zoo


def readable() -> dict[str, Readable]:
    """Files of every colour mode that the three formats bring, with what they show."""
    return {
        **_plain(),
        **_palettes(),
        **_greys(),
        **_deep(),
        **_four_inks(),
        **_profiled(),
        **_odd_metadata(),
        **_others(),
    }


def _plain() -> dict[str, Readable]:
    image, rgba = photo(), noise(24, 32, 4)
    rgba[:8, :, 3] = 0
    return {
        "png rgb": Readable(saved(image, "PNG"), image),
        "png interlaced": Readable(_interlaced(), np.full((16, 16, 3), 200, np.uint8)),
        "png rgba": Readable(saved(rgba, "PNG"), rgba[..., :3], rgba[..., 3]),
        "png rgb with a transparent colour": Readable(
            saved(image, "PNG", transparency=tuple(image[5, 9].tolist())),
            image,
            np.where((image == image[5, 9]).all(axis=2), 0, 255).astype(np.uint8),
        ),
        "webp lossless": Readable(saved(image, "WEBP", lossless=True), image),
        "webp lossless rgba": Readable(saved(rgba, "WEBP", lossless=True, exact=True), rgba[..., :3], rgba[..., 3]),
        "jpeg": Readable(saved(image, "JPEG", quality=100, subsampling=0), image, tolerance=8),
        "jpeg progressive": Readable(
            saved(image, "JPEG", quality=100, subsampling=0, progressive=True), image, tolerance=8
        ),
    }


def _interlaced() -> bytes:
    """Adam7 of a flat 16 × 16 grey: the seven passes' rows, one after the other."""
    passes = [(2, 2), (2, 2), (4, 2), (4, 4), (8, 4), (8, 8), (16, 8)]
    rows = b"".join((b"\0" + b"\xc8" * width) * height for width, height in passes)
    data = png((16, 16), 8, 0, rows)
    header = data[16:28] + b"\1"
    return PNG_SIGNATURE + chunk(b"IHDR", header) + data[33:]


def _palettes() -> dict[str, Readable]:
    indices = np.arange(16 * 16, dtype=np.uint8).reshape(16, 16)
    colours = noise(256, 3)
    palette = chunk(b"PLTE", colours.tobytes())
    faint = bytes(255 - i for i in range(256))
    first_gone = np.where(indices == 3, 0, 255).astype(np.uint8)
    rows = rows_of(indices)
    two_bit = b"".join(b"\0" + bytes([0b00011011] * 4) for _ in range(16))
    return {
        "png palette": Readable(png((16, 16), 8, 3, rows, palette), colours[indices]),
        "png palette with one transparent index": Readable(
            png((16, 16), 8, 3, rows, palette, chunk(b"tRNS", b"\xff\xff\xff\x00")), colours[indices], first_gone
        ),
        "png palette with alpha for each index": Readable(
            png((16, 16), 8, 3, rows, palette, chunk(b"tRNS", faint)), colours[indices], 255 - indices
        ),
        "png palette of four colours": Readable(
            png((16, 16), 2, 3, two_bit, chunk(b"PLTE", colours[:4].tobytes())),
            colours[np.tile(np.arange(4), (16, 4))],
        ),
    }


def _greys() -> dict[str, Readable]:
    grey = noise(16, 32)
    grey_alpha = noise(16, 32, 2)
    bits = noise(16, 4)
    black_or_white = np.unpackbits(bits, axis=1) * np.uint8(255)
    nibbles = noise(16, 16)
    sixteenths = np.stack([nibbles >> 4, nibbles & 15], axis=-1).reshape(16, 32)
    return {
        "png grey": Readable(saved(grey, "PNG"), _rgb(grey)),
        "png grey with alpha": Readable(
            png((32, 16), 8, 4, rows_of(grey_alpha)), _rgb(grey_alpha[..., 0]), grey_alpha[..., 1]
        ),
        "png 1 bit": Readable(png((32, 16), 1, 0, rows_of(bits)), _rgb(black_or_white)),
        "png 1 bit with transparent white": Readable(
            png((32, 16), 1, 0, rows_of(bits), chunk(b"tRNS", b"\0\1")), _rgb(black_or_white), 255 - black_or_white
        ),
        "png 4 bit with a transparent grey": Readable(
            png((32, 16), 4, 0, rows_of(nibbles), chunk(b"tRNS", b"\0\5")),
            _rgb(sixteenths * 17),
            np.where(sixteenths == 5, 0, 255).astype(np.uint8),
        ),
        "jpeg grey": Readable(saved(photo()[..., 0], "JPEG", quality=100), _rgb(photo()[..., 0]), tolerance=4),
    }


def _deep() -> dict[str, Readable]:
    wide = np.arange(65_536, dtype=">u2").reshape(256, 256)
    nearest = np.round(wide.astype(float) / 257).astype(np.uint8)
    deep = np.random.default_rng(5).integers(0, 65_536, (16, 16, 4)).astype(">u2")
    high = (deep >> 8).astype(np.uint8)
    return {
        "png 16 bit grey": Readable(png((256, 256), 16, 0, rows_of(wide)), _rgb(nearest)),
        "png 16 bit grey with a transparent grey": Readable(
            png((256, 256), 16, 0, rows_of(wide), chunk(b"tRNS", b"\x12\x34")),
            _rgb(nearest),
            np.where(wide == 0x1234, 0, 65_535).astype(np.uint16),
        ),
        "png 16 bit rgb": Readable(png((16, 16), 16, 2, rows_of(deep[..., :3])), high[..., :3], tolerance=1),
        "png 16 bit rgb with a transparent colour": Readable(
            png((16, 16), 16, 2, rows_of(deep[..., :3]), chunk(b"tRNS", deep[3, 4, :3].tobytes())),
            high[..., :3],
            np.where((deep[..., :3] == deep[3, 4, :3]).all(axis=2), 0, 65_535).astype(np.uint16),
            tolerance=1,
        ),
        "png 16 bit rgba": Readable(png((16, 16), 16, 6, rows_of(deep)), high[..., :3], deep[..., 3], tolerance=1),
        "png 16 bit grey with alpha": Readable(
            png((16, 16), 16, 4, rows_of(deep[..., :2])), _rgb(high[..., 0]), deep[..., 1], tolerance=1
        ),
    }


def _four_inks() -> dict[str, Readable]:
    cyan = Image.new("CMYK", (32, 24), (255, 0, 0, 0))
    half_black = Image.new("CMYK", (32, 24), (0, 0, 0, 128))
    # Stored as Y, Cb, Cr, K = 150, 100, 160, 200 by claiming, in Adobe's marker, a transform that Pillow did not apply.
    stored = saved(Image.new("CMYK", (32, 24), (255 - 150, 255 - 100, 255 - 160, 255 - 200)), "JPEG", quality=100)
    adobe = stored.index(b"Adobe")
    ycck = stored[: adobe + 11] + b"\x02" + stored[adobe + 12 :]
    red, green, blue = 150 + 1.402 * 32, 150 - 0.344136 * -28 - 0.714136 * 32, 150 + 1.772 * -28
    shown = [round((255 - channel) * 200 / 255) for channel in (red, green, blue)]
    profile = black_only_cmyk_profile()
    return {
        "jpeg cmyk": Readable(saved(cyan, "JPEG", quality=100), _flat(0, 255, 255), tolerance=2),
        "jpeg cmyk black": Readable(saved(half_black, "JPEG", quality=100), _flat(127, 127, 127), tolerance=2),
        "jpeg ycck": Readable(ycck, _flat(*shown), tolerance=3),
        "jpeg cmyk with a profile": Readable(
            saved(cyan, "JPEG", quality=100, icc_profile=profile), _flat(255, 255, 255), tolerance=2
        ),
    }


def _profiled() -> dict[str, Readable]:
    image, grey, rgba = photo(), np.tile(np.arange(256, dtype=np.uint8), (16, 1)), noise(24, 32, 4)
    wide = rgb_profile(DISPLAY_P3_D50, 1.8)
    shown = converted(image, DISPLAY_P3_D50, 1.8)
    no_profile = b"not a profile"
    return {
        "png with a wide profile": Readable(saved(image, "PNG", icc_profile=wide), shown, tolerance=1),
        "webp with a wide profile": Readable(saved(image, "WEBP", lossless=True, icc_profile=wide), shown, tolerance=1),
        "jpeg with a wide profile": Readable(
            saved(image, "JPEG", quality=100, subsampling=0, icc_profile=wide), shown, tolerance=20
        ),
        "png rgba with a wide profile": Readable(
            saved(rgba, "PNG", icc_profile=wide),
            converted(rgba[..., :3], DISPLAY_P3_D50, 1.8),
            rgba[..., 3],
            tolerance=1,
        ),
        "png grey with a linear profile": Readable(
            saved(grey, "PNG", icc_profile=grey_profile(1.0)), _rgb(srgb_encoded(grey / 255.0)), tolerance=1
        ),
        "png grey with an rgb profile": Readable(saved(grey, "PNG", icc_profile=wide), _rgb(grey)),
        "png rgb with a grey profile": Readable(saved(image, "PNG", icc_profile=grey_profile(1.0)), image),
        "png with a broken profile": Readable(saved(image, "PNG", icc_profile=no_profile), image),
        "png with a cut profile": Readable(saved(image, "PNG", icc_profile=wide[:300]), image),
    }


def _odd_metadata() -> dict[str, Readable]:
    """Metadata that collides with what Pillow keeps under the same names, or that cannot be parsed."""
    image = photo()
    plain = saved(image, "PNG")
    keys = (b"transparency", b"icc_profile", b"exif", b"bbox")
    full = saved(image, "JPEG", quality=100, subsampling=0)
    inflated = chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(bytes(8 * 2**20)))
    texts = {
        f"png with a text named {key.decode()}": Readable(
            with_png_chunks(plain, chunk(b"tEXt", key + b"\0" + b"nonsense")), image
        )
        for key in keys
    }
    circular = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHIII", 1, EXIF_IFD, 4, 1, 8, 8)
    return {
        **texts,
        "png with broken exif": Readable(saved(image, "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), image),
        "png with circular exif": Readable(saved(image, "PNG", exif=circular), image),
        "png with a broken animation chunk": Readable(
            with_png_chunks(plain, chunk(b"acTL", struct.pack(">II", 0, 0))), image
        ),
        "png of a text that inflates": Readable(with_png_chunks(plain, inflated), image),
        "jpeg with a trailer": Readable(full + b"\xff\xda" * 1000, image, tolerance=8),
        "jpeg without its end": Readable(full[:-2], image, tolerance=8),
        "jpeg without half of its end": Readable(full[:-1], image, tolerance=8),
    }


def _others() -> dict[str, Readable]:
    """Formats that are read and not written."""
    image, few = photo(), Image.fromarray(photo()).quantize(64)
    return {
        "tiff": Readable(saved(image, "TIFF"), image),
        "tiff with lzw": Readable(saved(image, "TIFF", compression="tiff_lzw"), image),
        "tiff grey": Readable(saved(image[..., 0], "TIFF", compression="tiff_deflate"), _rgb(image[..., 0])),
        "tiff cmyk": Readable(saved(Image.new("CMYK", (32, 24), (255, 0, 0, 0)), "TIFF"), _flat(0, 255, 255)),
        "gif": Readable(saved(few, "GIF"), np.asarray(few.convert("RGB"))),
        "avif": Readable(saved(image, "AVIF", quality=100, subsampling="4:4:4"), image, tolerance=12),
        "heic": Readable(HEIC, np.full((48, 64, 3), (200, 40, 40), np.uint8), tolerance=3),
    }


def oriented(file_format: str = "PNG") -> dict[int, bytes]:
    """Eight files, one for each EXIF orientation, that all show :func:`photo` upright."""
    up = photo()
    stored = {
        1: up,
        2: up[:, ::-1],
        3: up[::-1, ::-1],
        4: up[::-1],
        5: up.transpose(1, 0, 2),
        6: np.rot90(up, 1),  # to be turned clockwise for display
        7: np.rot90(up, 2).transpose(1, 0, 2),
        8: np.rot90(up, -1),
    }
    options = {"lossless": True} if file_format == "WEBP" else {}
    return {
        number: saved(np.ascontiguousarray(pixels), file_format, exif=exif_block(number), **options)
        for number, pixels in stored.items()
    }


# ------------------------------------------------------------------------------------------------------------ refused


def with_gif_extensions(data: bytes, *extensions: bytes) -> bytes:
    """A GIF that Pillow wrote, with extensions put in before its picture."""
    at = 13 + (6 << (data[10] & 7))
    return data[:at] + b"".join(extensions) + data[at:]


def hostile() -> dict[str, Refused]:
    """Files that must be refused, each with its reason's code."""
    return {**_other_formats(), **_animations(), **_sizes(), **_damaged(), **_bombs()}


def _other_formats() -> dict[str, Refused]:
    image = Image.fromarray(photo())
    samples = {
        "html": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "svg": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>',
        "json": b'{"error": "expired"}',
        "pdf": b"%PDF-1.7\n",
        "bmp": saved(image, "BMP"),
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n",
        "riff audio": b"RIFF\x24\0\0\0WAVEfmt ",
        "noise": noise(1, 500).tobytes(),
        "zeros": bytes(500),
    }
    refused = {name: Refused(data, "unsupported_format") for name, data in samples.items()}
    jpeg = saved(image, "JPEG")
    frame = jpeg.index(b"\xff\xc0")
    twelve_bit = jpeg[: frame + 4] + b"\x0c" + jpeg[frame + 5 :]
    two_components = jpeg[: frame + 9] + b"\x02" + jpeg[frame + 10 :]
    lossless = jpeg[: frame + 1] + b"\xc3" + jpeg[frame + 2 :]
    return {
        **refused,
        "jpeg of 12 bits": Refused(twelve_bit, "unsupported_format"),
        "jpeg of 2 components": Refused(two_components, "unsupported_format"),
        "jpeg lossless": Refused(lossless, "unsupported_format"),
    }


def _animations() -> dict[str, Refused]:
    frames = [Image.fromarray(photo()), Image.fromarray(photo()[::-1])]
    options: dict[str, Any] = {"save_all": True, "append_images": frames[1:], "duration": 100}
    return {
        f"animated {name.lower()}": Refused(saved(frames[0], name, **options), "animated") for name in ("PNG", "WEBP")
    }


def _sizes() -> dict[str, Refused]:
    jpeg = saved(photo(), "JPEG")
    frame = jpeg.index(b"\xff\xc0")
    vast_jpeg = jpeg[: frame + 5] + struct.pack(">HH", 60_000, 60_000) + jpeg[frame + 9 :]
    canvas = (15_999).to_bytes(3, "little") * 2
    vast_webp = b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + canvas
    lossless_bits = struct.pack("<I", 16_383 | 16_383 << 14)
    vast_lossless = b"RIFF\x1e\0\0\0WEBPVP8L\x12\0\0\0\x2f" + lossless_bits + bytes(13)
    return {
        "empty": Refused(b"", "empty"),
        "too many bytes": Refused(saved(photo(), "PNG") + bytes(LIMITS.max_bytes), "too_large"),
        "png of 900 megapixels": Refused(png((30_000, 30_000), 8, 2, b""), "too_large"),
        "jpeg of 3600 megapixels": Refused(vast_jpeg, "too_large"),
        "webp of 256 megapixels": Refused(vast_webp, "too_large"),
        "webp lossless of 268 megapixels": Refused(vast_lossless, "too_large"),
        "png just over the limit": Refused(png((1001, 1000), 1, 0, b""), "too_large"),
        "png of one line": Refused(saved(photo(1, 300), "PNG"), "too_small"),
        "jpeg of 15 pixels": Refused(saved(photo(15, 15), "JPEG"), "too_small"),
        "png without a side": Refused(png((0, 100), 8, 2, b""), "too_small"),
    }


def _damaged() -> dict[str, Refused]:
    plain = saved(photo(), "PNG")
    jpeg, webp = saved(photo(), "JPEG"), saved(photo(), "WEBP")
    flipped = bytearray(plain)
    flipped[-13] ^= 4  # the checksum of the pixels, which no decoder needs
    second_header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2000, 1000, 8, 0, 0, 0, 0))
    samples = {
        "png cut": plain[: len(plain) // 2],
        "png without its end": plain[:-12],
        "png with a wrong checksum": bytes(flipped),
        "png of garbage pixels": png((32, 32), 8, 2, b"")[:33] + chunk(b"IDAT", bytes(99)) + chunk(b"IEND"),
        "png with two headers": png((32, 32), 8, 0, bytes(2001 * 1000), second_header),
        "png of an unknown depth": png((32, 32), 3, 2, bytes(3000)),
        "png with a short transparency": with_png_chunks(plain, chunk(b"tRNS", b"\0")),
        "jpeg cut": jpeg[: len(jpeg) * 3 // 4],
        "jpeg without its last pixels and its end": jpeg[:-6],
        "jpeg header alone": jpeg[:3],
        "webp cut": webp[: len(webp) // 2],
        "webp of garbage": b"RIFF\x40\0\0\0WEBPVP8 \x34\0\0\0\0\0\0\x9d\x01\x2a\x40\0\x40\0" + bytes(42),
        "three letters of riff": b"RIF",
    }
    return {name: Refused(data, "truncated") for name, data in samples.items()}


def _bombs() -> dict[str, Refused]:
    plain = saved(photo(), "PNG")
    progressive = saved(photo(), "JPEG", progressive=True)
    last_scan = progressive[progressive.rindex(b"\xff\xda") : -2]
    comment = b"!\xfe" + b"\1a" * 300_000 + b"\0"
    return {
        "gif of 300000 sub-blocks": Refused(with_gif_extensions(saved(photo(), "GIF"), comment), "unsupported_format"),
        "jpeg of 300 scans": Refused(progressive[:-2] + last_scan * 300 + b"\xff\xd9", "unsupported_format"),
        "jpeg of 9000 segments": Refused(
            with_jpeg_segments(saved(photo(), "JPEG"), segment(0xFE, b"") * 9000), "unsupported_format"
        ),
        "jpeg of 40 exif segments": Refused(
            with_jpeg_segments(saved(photo(), "JPEG"), segment(0xE1, b"Exif\0\0" + bytes(99)) * 40),
            "unsupported_format",
        ),
        "png of 300 chunks": Refused(with_png_chunks(plain, chunk(b"teSt") * 300), "unsupported_format"),
        "png of 80000 empty pixel chunks": Refused(
            plain[:33] + chunk(b"IDAT") * 80_000 + plain[33:], "unsupported_format"
        ),
    }


def _rgb(grey: NDArray[Any]) -> Pixels:
    return np.repeat(grey[..., np.newaxis], 3, axis=2)


def _flat(*colour: int) -> Pixels:
    return np.full((24, 32, 3), colour, dtype=np.uint8)
