"""For random combinations of format, mode, depth, colours, orientation and metadata: what is published looks like its
source, and says the same of its rights, in the eyes of Pillow, which wrote neither."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps, IptcImagePlugin

from tests import images_zoo as zoo
from workers.images import decode, encode

# Pillow warns about metadata that it does not understand.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

ARTIST, COPYRIGHT, ORIENTATION = 0x013B, 0x8298, 0x0112
# The fields of IPTC's photo metadata standard that say whose picture it is, in IIM and in XMP.
RIGHTS_IIM = (80, 85, 110, 115, 116, 118, 40)
RIGHTS_XMP = (
    ("dc", "http://purl.org/dc/elements/1.1/", "rights"),
    ("photoshop", "http://ns.adobe.com/photoshop/1.0/", "Credit"),
    ("photoshop", "http://ns.adobe.com/photoshop/1.0/", "Source"),
    ("xmpRights", "http://ns.adobe.com/xap/1.0/rights/", "UsageTerms"),
    ("xmpRights", "http://ns.adobe.com/xap/1.0/rights/", "WebStatement"),
    ("plus", "http://ns.useplus.org/ldf/xmp/1.0/", "DataMining"),
)
WIDE = zoo.rgb_profile(zoo.DISPLAY_P3_D50, 1.8)

words = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Co", "Cn")), min_size=1, max_size=20)


@dataclass(frozen=True)
class Source:
    """What a file shall be like; `change` is what an activation would add, in levels of 8 bits."""

    file_format: str
    mode: str
    orientation: int
    profile: bytes | None
    exif: dict[int, str]
    iptc: dict[int, str]
    xmp: dict[int, str]
    order: str
    change: int


@st.composite
def sources(draw: st.DrawFn) -> Source:
    file_format = draw(st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF"]))
    modes = {
        "JPEG": ["L", "RGB", "CMYK"],
        "PNG": ["L", "LA", "RGB", "RGBA", "P", "L16", "RGB16", "RGBA16"],
        "WEBP": ["RGB", "RGBA"],
        "TIFF": ["L", "RGB"],
    }[file_format]
    mode = draw(st.sampled_from(modes))
    of_rgb = mode.startswith("RGB")
    return Source(
        file_format,
        mode,
        draw(st.integers(1, 8)),
        draw(st.sampled_from([None, WIDE])) if of_rgb else None,
        draw(st.dictionaries(st.sampled_from([ARTIST, COPYRIGHT]), words)),
        draw(st.dictionaries(st.sampled_from(RIGHTS_IIM), words)) if file_format in ("JPEG", "PNG") else {},
        draw(st.dictionaries(st.integers(0, len(RIGHTS_XMP) - 1), words)),
        draw(st.sampled_from(["<", ">"])),
        draw(st.integers(-4, 4)),
    )


def exif_of(source: Source) -> bytes:
    entries = [(ORIENTATION, 3, 1, struct.pack(source.order + "H", source.orientation))]
    for tag, text in source.exif.items():
        value = text.encode() + b"\0"
        entries.append((tag, 2, len(value), value))
    return zoo.tiff_block(entries, source.order)


def xmp_of(source: Source) -> bytes:
    import xml.sax.saxutils as xml  # noqa: PLC0415

    spaces = {prefix: space for prefix, space, _ in RIGHTS_XMP}
    named = " ".join(f'xmlns:{prefix}="{space}"' for prefix, space in spaces.items())
    properties = "".join(
        f"<{prefix}:{name}>{xml.escape(source.xmp[i])}</{prefix}:{name}>"
        for i, (prefix, _, name) in enumerate(RIGHTS_XMP)
        if i in source.xmp
    )
    return (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/"><rdf:RDF '
        f'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description {named} '
        f'tiff:Orientation="{source.orientation}">{properties}</rdf:Description></rdf:RDF></x:xmpmeta>'
    ).encode()


def resources_of(source: Source) -> bytes:
    sets = b"".join(zoo.data_set(2, number, text.encode()) for number, text in source.iptc.items())
    return zoo.resource(0x0404, sets) if sets else b""


def file_of(source: Source) -> bytes:
    pixels = zoo.photo(40, 52)
    if source.file_format == "PNG" and source.mode.endswith("16"):
        return deep_png(source, pixels)
    mode = source.mode.removesuffix("16")
    image = Image.fromarray(pixels).convert(mode)
    options: dict[str, Any] = {"icc_profile": source.profile}
    if source.file_format == "TIFF":
        tags: dict[int, Any] = {0x02BC: xmp_of(source), ORIENTATION: source.orientation}
        return zoo.saved(image, "TIFF", tiffinfo=tags | source.exif, **options)
    if source.file_format == "WEBP":
        return zoo.saved(image, "WEBP", lossless=True, exact=True, exif=exif_of(source), xmp=xmp_of(source), **options)
    if source.file_format == "PNG":
        return zoo.with_png_chunks(zoo.saved(image, "PNG", **options), *png_chunks(source))
    resources = resources_of(source)
    segments = [
        zoo.segment(0xE1, b"Exif\0\0" + exif_of(source)),
        zoo.segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp_of(source)),
        *([zoo.segment(0xED, b"Photoshop 3.0\0" + resources)] if resources else []),
    ]
    return zoo.with_jpeg_segments(zoo.saved(image, "JPEG", quality=98, subsampling=0, **options), *segments)


def png_chunks(source: Source) -> list[bytes]:
    chunks = [
        zoo.chunk(b"eXIf", exif_of(source)),
        zoo.chunk(b"iTXt", b"XML:com.adobe.xmp" + bytes(5) + xmp_of(source)),
    ]
    if resources := resources_of(source):
        text = b"\niptc\n%8d\n" % len(resources) + resources.hex().encode() + b"\n"
        chunks.append(zoo.chunk(b"zTXt", b"Raw profile type iptc\0\0" + zlib.compress(text)))
    return chunks


def deep_png(source: Source, pixels: np.ndarray) -> bytes:
    channels = {"L16": pixels[..., :1], "RGB16": pixels, "RGBA16": np.dstack([pixels, pixels[..., 0]])}[source.mode]
    samples = channels.astype(">u2") * 257 + 100
    kind = {"L16": 0, "RGB16": 2, "RGBA16": 6}[source.mode]
    data = zoo.png((pixels.shape[1], pixels.shape[0]), 16, kind, zoo.rows_of(samples))
    profile = [zoo.chunk(b"iCCP", b"P3\0\0" + zlib.compress(source.profile))] if source.profile else []
    return zoo.with_png_chunks(data, *profile, *png_chunks(source))


def shown(data: bytes) -> tuple[np.ndarray, np.ndarray | None]:
    """As a viewer shows a file: upright, in sRGB (float, 0 to 255); and its alpha."""
    image = Image.open(io.BytesIO(data))
    image.load()
    profile = image.info.get("icc_profile")
    image = ImageOps.exif_transpose(image)
    has_alpha = image.mode in ("LA", "RGBA") or "transparency" in image.info
    alpha = np.asarray(image.convert("RGBA"))[..., 3] if has_alpha else None
    if image.mode.startswith("I;16"):
        return np.repeat(np.asarray(image)[..., np.newaxis] / 257, 3, axis=2), alpha
    colours = image if image.mode == "CMYK" else image.convert("RGB")
    if profile:
        colours = ImageCms.profileToProfile(
            colours,
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            1,
            "RGB",
            flags=0x2000,
        )
    return np.asarray(colours.convert("RGB")).astype(float), alpha


def rights(data: bytes) -> dict[str, Any]:
    image = Image.open(io.BytesIO(data))
    exif = image.getexif()
    found = image.getxmp().get("xmpmeta", {}).get("RDF", {}).get("Description", {})
    text = image.info.get("Raw profile type iptc")
    if text:
        resources = bytes.fromhex("".join(text.split("\n")[3:]))
        iptc: Any = resources[resources.index(b"8BIM\x04\x04") + 12 :].rstrip(b"\0")
    else:
        iptc = IptcImagePlugin.getiptcinfo(image) if image.format == "JPEG" else None
    return {
        "exif": {tag: exif.get(tag) for tag in (ARTIST, COPYRIGHT)},
        "iptc": iptc,
        "xmp": {name: found.get(name) for _, _, name in RIGHTS_XMP} if isinstance(found, dict) else {},
    }


@settings(max_examples=150, deadline=None, derandomize=True)
@given(sources())
def test_a_published_file_looks_like_its_source_and_says_the_same_of_its_rights(source: Source) -> None:
    data = file_of(source)
    image = decode(data, zoo.LIMITS)
    levels = source.change * (257 if image.samples.dtype == np.uint16 else 1)
    changed = (image.samples.astype(int) + levels).clip(0, np.iinfo(image.samples.dtype).max)
    published = encode(changed.astype(image.samples.dtype), image).data
    (before, alpha_before), (after, alpha_after) = shown(data), shown(published)
    assert before.shape == after.shape
    # A wide profile's shadows magnify a level.
    assert np.abs(before - after).mean() <= 1.5 * (1 + abs(source.change))
    assert (alpha_before is None) == (alpha_after is None)
    if alpha_before is not None:
        assert (alpha_before == alpha_after).all()
    assert rights(published) == rights(data)
    again = Image.open(io.BytesIO(published))
    assert again.getexif().get(ORIENTATION, 1) == 1
    assert b'tiff:Orientation="1"' in published or source.file_format == "PNG"
