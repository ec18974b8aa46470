"""Metadata of a protected file: the owner's, byte by byte, without what shows the unprotected original.

Files are made by hand or by Pillow, and what was published is read by Pillow: the code under test writes, it does not
judge itself.
"""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image, ImageCms, IptcImagePlugin

from tasks.errors import BadInput
from tests import images_zoo as zoo
from workers.images import decode, encode
from workers.images.metadata import MANIFEST_LOST, Keep, xmp

FORMATS = ("JPEG", "PNG", "WEBP")
COPYRIGHT, DESCRIPTION = 0x8298, 0x010E
RIGHTS = "© 2026 Bildarchiv Köln, 写真".encode()
XMP = (
    b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    b'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
    b'xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmpRights="http://ns.adobe.com/xap/1.0/rights/" '
    b'xmlns:plus="http://ns.useplus.org/ldf/xmp/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/" '
    b'xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" '
    b'tiff:Orientation="6" xmpRights:WebStatement="https://example.org/licence" exif:GPSLatitude="50,56N" '
    b'photoshop:Credit="Agency">'
    b"<dc:rights><rdf:Alt><rdf:li xml:lang='x-default'>(c) \xc3\xa9</rdf:li></rdf:Alt></dc:rights>"
    b"<dc:subject><rdf:Bag><rdf:li>snow</rdf:li></rdf:Bag></dc:subject>"
    b"<plus:Licensor><rdf:Seq><rdf:li rdf:parseType='Resource'><plus:LicensorURL>https://example.org/buy"
    b"</plus:LicensorURL></rdf:li></rdf:Seq></plus:Licensor>"
    b"<xmp:Thumbnails><rdf:Alt><rdf:li rdf:parseType='Resource'><xmpGImg:image "
    b"xmlns:xmpGImg='http://ns.adobe.com/xap/1.0/g/img/'>/9j/4AAQ</xmpGImg:image></rdf:li></rdf:Alt></xmp:Thumbnails>"
    b"</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end='w'?>"
)
IPTC = (
    zoo.data_set(1, 90, b"\x1b%G")
    + zoo.data_set(2, 80, "Jörg Müller".encode())
    + zoo.data_set(2, 110, b"Agency")
    + zoo.data_set(2, 116, RIGHTS)
    + zoo.data_set(2, 118, b"mail@example.org")
    + zoo.data_set(2, 25, b"snow")
    + zoo.data_set(2, 120, b"A caption")
)
THUMBNAIL = zoo.saved(zoo.photo(16, 16), "JPEG")
GIF = zoo.saved(zoo.photo(), "GIF")
RESOURCES = zoo.resource(0x0404, IPTC) + zoo.resource(0x040C, bytes(28) + THUMBNAIL) + zoo.resource(0x040A, b"\1")


def published(data: bytes, keep: Keep = "all") -> tuple[Image.Image, tuple[str, ...]]:
    """What is published for a file, opened by Pillow, and what is said to be lost."""
    image = decode(data, zoo.LIMITS)
    encoded = encode(image.samples, image, keep=keep)
    opened = Image.open(io.BytesIO(encoded.data))
    opened.load()
    return opened, encoded.lost


def with_exif(block: bytes, file_format: str = "JPEG") -> bytes:
    return zoo.saved(zoo.photo(), file_format, exif=b"Exif\0\0" + block)


def jpeg_with(*segments: bytes) -> bytes:
    return zoo.with_jpeg_segments(zoo.saved(zoo.photo(), "JPEG"), *segments)


def xmp_of(image: Image.Image) -> bytes:
    text = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp", b"")
    return text.encode() if isinstance(text, str) else text


def raw_profile(kind: bytes, data: bytes) -> bytes:
    """A text chunk as ImageMagick writes it."""
    text = b"\n" + kind + b"\n%8d\n" % len(data) + data.hex().encode() + b"\n"
    return zoo.chunk(b"zTXt", b"Raw profile type " + kind + b"\0\0" + zlib.compress(text))


# -------------------------------------------------------------------------------------------------------------- EXIF


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("file_format", FORMATS)
def test_exif_text_is_published_byte_for_byte(file_format: str, order: str) -> None:
    block = zoo.tiff_block([(COPYRIGHT, 2, len(RIGHTS) + 1, RIGHTS + b"\0")], order)
    image, lost = published(with_exif(block, file_format))
    assert RIGHTS in image.info["exif"]
    assert image.getexif()[COPYRIGHT].encode("latin-1") == RIGHTS  # Pillow reads EXIF text as Latin-1
    assert lost == ()


@pytest.mark.parametrize("file_format", FORMATS)
def test_exif_is_published_upright_with_all_the_owner_s_entries(file_format: str) -> None:
    exif = published(zoo.saved(zoo.photo(), file_format, exif=zoo.exif_block(6)))[0].getexif()
    assert exif[zoo.ORIENTATION] == 1
    assert exif[zoo.ARTIST] == "Ada"
    assert exif.get_ifd(zoo.GPS_IFD) == {1: "N"}
    assert exif.get_ifd(zoo.EXIF_IFD) == {zoo.COLOUR_SPACE: 65_535, zoo.MAKER_NOTE: b"secret of the maker"}


def test_a_maker_note_stays_at_its_place_for_its_offsets_count_from_the_block_s_start() -> None:
    note = b"maker" * 40
    block = zoo.tiff_block(
        [(COPYRIGHT, 2, 12, b"(c) Example\0"), (zoo.ORIENTATION, 3, 1, b"\6\0")],
        exif=[(zoo.MAKER_NOTE, 7, len(note), note)],
    )
    image, _ = published(with_exif(block))
    assert image.info["exif"].index(note) == 6 + block.index(note)
    assert image.getexif()[COPYRIGHT] == "(c) Example"


def test_exif_is_published_without_its_thumbnail_and_without_pictures_in_a_maker_note() -> None:
    inside = b"note" * 200 + THUMBNAIL
    block = zoo.tiff_block([(zoo.ARTIST, 2, 4, b"Ada\0")], exif=[(zoo.MAKER_NOTE, 7, len(inside), inside)])
    image, lost = published(with_exif(block))
    assert THUMBNAIL[20:60] not in image.info["exif"]
    assert image.getexif()[zoo.ARTIST] == "Ada"
    assert lost == ("EXIF 0x927c: holds a picture of the original",)
    data = zoo.saved(zoo.photo(), "JPEG", exif=zoo.exif_with_thumbnail(THUMBNAIL))
    image, lost = published(data)
    assert THUMBNAIL[20:60] not in image.info["exif"]
    assert "EXIF thumbnail" in lost


@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
def test_exif_longer_than_a_jpeg_segment_is_kept_where_the_format_can_hold_it(file_format: str) -> None:
    note = b"n" * 70_000
    block = zoo.tiff_block(
        [(zoo.ORIENTATION, 3, 1, b"\6\0"), (COPYRIGHT, 2, 12, b"(c) Example\0")],
        exif=[(zoo.MAKER_NOTE, 7, len(note), note)],
    )
    image, lost = published(with_exif(block, file_format))
    assert image.size == (48, 64)
    assert image.getexif()[COPYRIGHT] == "(c) Example"
    assert note in image.info["exif"]
    assert lost == ()


ODD = {
    "a value outside of the block": (DESCRIPTION, 2, 5000, b"\0\0\0\0"),
    "an unknown type": (DESCRIPTION, 77, 1, b"\1\2\3\4"),
    "no value": (DESCRIPTION, 2, 0, b"\0\0\0\0"),
    "a value longer than four gigabytes": (DESCRIPTION, 12, 0xFFFFFFFF, b"\0\0\0\0"),
}


@pytest.mark.parametrize("name", ODD)
def test_one_odd_entry_is_lost_and_named_and_no_other(name: str) -> None:
    block = zoo.tiff_block(
        [ODD[name], (zoo.ORIENTATION, 3, 1, b"\6\0"), (COPYRIGHT, 2, 12, b"(c) Example\0")],
    )
    image, lost = published(jpeg_with(zoo.segment(0xE1, b"Exif\0\0" + block)))
    assert image.size == (48, 64)
    assert image.getexif()[COPYRIGHT] == "(c) Example"
    assert DESCRIPTION not in image.getexif()
    assert len(lost) == 1
    assert lost[0].startswith("EXIF 0x010e: ")


def test_an_entry_of_an_odd_type_keeps_its_type() -> None:
    block = zoo.tiff_block([(0x011A, 2, 3, b"72\0"), (zoo.ORIENTATION, 4, 1, b"\3\0\0\0")])
    image, lost = published(jpeg_with(zoo.segment(0xE1, b"Exif\0\0" + block)))
    assert struct.pack("<HHL", 0x011A, 2, 3) + b"72\0\0" in image.info["exif"]
    assert image.getexif()[zoo.ORIENTATION] == 1
    assert lost == ()


def test_entries_that_share_bytes_cannot_multiply_them() -> None:
    shared = b"x" * 4000
    block = zoo.tiff_block([(0x9000 + i, 7, 4000, shared if i == 0 else b"") for i in range(400)])
    place = block.index(shared)
    patched = bytearray(block)
    for row in range(1, 400):
        patched[10 + 12 * row + 8 : 10 + 12 * row + 12] = struct.pack("<L", place)
    image, lost = published(with_exif(bytes(patched), "PNG"))
    assert len(image.info["exif"]) <= 2 * len(block)
    assert len(lost) > 300


def test_directories_that_go_in_circles_are_read_once() -> None:
    block = b"II*\0\x08\0\0\0" + struct.pack("<HHHLLL", 1, zoo.EXIF_IFD, 4, 1, 8, 0)
    assert published(with_exif(block, "PNG"))[1] == ("EXIF directory Exif: outside of its block",)


def test_stated_width_and_height_turn_with_the_picture() -> None:
    block = zoo.tiff_block(
        [(zoo.ORIENTATION, 3, 1, b"\6\0")], exif=[(0xA002, 4, 1, b"\x40\0\0\0"), (0xA003, 4, 1, b"\x30\0\0\0")]
    )
    exif = published(with_exif(block))[0].getexif().get_ifd(zoo.EXIF_IFD)
    assert (exif[0xA002], exif[0xA003]) == (48, 64)


# ------------------------------------------------------------------------------------------------------------ others


@pytest.mark.parametrize("file_format", FORMATS)
def test_xmp_is_published_upright_without_thumbnails_and_otherwise_as_it_was(file_format: str) -> None:
    image, _ = published(zoo.saved(zoo.photo(), file_format, **_xmp_option(file_format)))
    assert image.size == (48, 64)  # found in XMP alone
    start, end = XMP.index(b"<xmp:Thumbnails>"), XMP.index(b"</xmp:Thumbnails>") + len(b"</xmp:Thumbnails>")
    expected = (XMP[:start] + XMP[end:]).replace(b'tiff:Orientation="6"', b'tiff:Orientation="1"')
    assert xmp_of(image) == expected


def _xmp_option(file_format: str) -> dict[str, object]:
    if file_format != "PNG":
        return {"xmp": XMP}
    from PIL.PngImagePlugin import PngInfo  # noqa: PLC0415

    text = PngInfo()
    text.add_itxt("XML:com.adobe.xmp", XMP.decode())
    return {"pnginfo": text}


def test_exif_s_orientation_goes_before_xmp_s() -> None:
    block = zoo.tiff_block([(zoo.ORIENTATION, 3, 1, b"\1\0")])
    data = jpeg_with(zoo.segment(0xE1, b"Exif\0\0" + block), zoo.segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP))
    image, _ = published(data)
    assert image.size == (64, 48)
    assert b'tiff:Orientation="1"' in xmp_of(image)


MANY_NAMES = b"".join(b'<a xmlns:p%d="http://ns.adobe.com/tiff/1.0/"/>' % number for number in range(1000))


UNREADABLE_XMP = {
    "UTF-16": XMP.decode().encode("utf-16"),
    "Latin-1": XMP.replace("é".encode(), "é".encode("latin-1")),
    "said to be Latin-1": b'<?xml version="1.0" encoding="ISO-8859-1"?>' + XMP,
    "said to be in no encoding": b'\xef\xbb\xbf<?xml version="1.0" encoding="foo"?>' + XMP,
    "said to be in a code that is no text's": b"<?xml version='1.0' encoding = 'hex'?>" + XMP,
    "with a document type": b'<!DOCTYPE x [<!ENTITY a "b">]>' + XMP,
    "with many names": XMP + MANY_NAMES,
}


@pytest.mark.parametrize("keep", ["all", "rights"])
@pytest.mark.parametrize("name", UNREADABLE_XMP)
def test_xmp_that_cannot_be_cleaned_is_lost_and_named(name: str, keep: Keep) -> None:
    packet = UNREADABLE_XMP[name]
    image, lost = published(jpeg_with(zoo.segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + packet)), keep)
    assert "xmp" not in image.info
    assert lost == ("XMP: too long, not UTF-8, with a document type, or with many names for one namespace",)


def test_iptc_is_published_data_set_by_data_set_and_photoshop_s_thumbnail_is_not() -> None:
    image, lost = published(jpeg_with(zoo.segment(0xED, b"Photoshop 3.0\0" + RESOURCES)))
    assert image.info["photoshop"][0x0404] == IPTC
    assert image.info["photoshop"][0x040A] == b"\1"
    assert 0x040C not in image.info["photoshop"]
    assert lost == ("Photoshop thumbnail",)
    found = IptcImagePlugin.getiptcinfo(image)
    assert found is not None
    assert found[(2, 116)] == RIGHTS


def test_resources_that_go_over_several_segments_are_joined() -> None:
    resources = zoo.resource(0x07D0, bytes(100_000)) + RESOURCES
    halves = (resources[:60_000], resources[60_000:])
    image = decode(jpeg_with(*(zoo.segment(0xED, b"Photoshop 3.0\0" + half) for half in halves)), zoo.LIMITS)
    data = encode(image.samples, image).data
    assert zoo.resource(0x0404, IPTC) in data
    assert decode(data, zoo.LIMITS).blocks.photoshop == resources.replace(
        zoo.resource(0x040C, bytes(28) + THUMBNAIL), b""
    )


def test_a_png_s_raw_profiles_count_as_what_they_hold() -> None:
    block = zoo.tiff_block([(zoo.ORIENTATION, 3, 1, b"\6\0"), (COPYRIGHT, 2, 12, b"(c) Example\0")])
    plain = zoo.saved(zoo.photo(), "PNG")
    raw = raw_profile(b"exif", b"Exif\0\0" + block), raw_profile(b"xmp", XMP), raw_profile(b"iptc", RESOURCES)
    image, _ = published(zoo.with_png_chunks(plain, *raw))
    assert image.size == (48, 64)
    assert image.getexif()[COPYRIGHT] == "(c) Example"
    assert b"WebStatement" in xmp_of(image)
    lines = image.info["Raw profile type iptc"].split("\n")
    assert IPTC in bytes.fromhex("".join(lines[3:]))


def test_a_png_s_other_texts_and_a_jpeg_s_comment_are_published() -> None:
    plain = zoo.saved(zoo.photo(), "PNG")
    image, _ = published(
        zoo.with_png_chunks(plain, zoo.chunk(b"tEXt", b"Author\0Ada"), zoo.chunk(b"tEXt", b"Title\0X"))
    )
    assert (image.info["Author"], image.info["Title"]) == ("Ada", "X")
    assert published(zoo.saved(zoo.photo(), "JPEG", comment=b"a comment"))[0].info["comment"] == b"a comment"


def test_a_jpeg_s_metadata_go_into_a_png_where_one_is_asked_for() -> None:
    image = decode(everything(), zoo.LIMITS)
    encoded = encode(image.samples, image, coding=image.coding.lossless())
    opened = Image.open(io.BytesIO(encoded.data))
    opened.load()
    assert opened.format == "PNG"
    assert opened.info["Comment"] == "a comment"
    assert opened.getexif()[zoo.ARTIST] == "Ada"
    assert b"WebStatement" in xmp_of(opened)
    assert "Raw profile type iptc" in opened.info


def test_density_stays_and_turns_with_the_picture() -> None:
    assert published(zoo.saved(zoo.photo(), "JPEG", dpi=(300, 150)))[0].info["dpi"] == (300, 150)
    turned = zoo.saved(zoo.photo(), "JPEG", dpi=(300, 150), exif=zoo.exif_block(6))
    assert published(turned)[0].info["dpi"] == (150, 300)
    assert published(zoo.saved(zoo.photo(), "PNG", dpi=(300, 300)))[0].info["dpi"] == pytest.approx(
        (300, 300), abs=0.02
    )


LOSSES = {
    "a gain map": (
        zoo.saved(
            zoo.photo(),
            "JPEG",
            xmp=XMP.replace(b"<dc:rights>", b"<x xmlns:hdrgm='http://ns.adobe.com/hdr-gain-map/1.0/'/><dc:rights>"),
        )
        + THUMBNAIL,
        "HDR gain map",
    ),
    "content credentials": (jpeg_with(zoo.segment(0xEB, b"JP\0\1\0\0\0\1jumbc2pa")), "C2PA manifest"),
    "further pictures": (zoo.saved(zoo.photo(), "JPEG") + THUMBNAIL, "further pictures"),
    "a video": (zoo.saved(zoo.photo(), "JPEG") + b"\0\0\0\x18ftypmp42" * 9, "bytes after the picture"),
    "a video behind a PNG": (zoo.saved(zoo.photo(), "PNG") + b"ftypmp42", "8 bytes after the picture"),
    "bytes behind a WebP": (zoo.saved(zoo.photo(), "WEBP") + b"ftypmp42", "8 bytes after the picture"),
    "a PNG's time": (
        zoo.with_png_chunks(zoo.saved(zoo.photo(), "PNG"), zoo.chunk(b"tIME", bytes((7, 230, 1, 1, 1, 1, 1)))),
        "chunk tIME",
    ),
    "JFIF's thumbnail": (
        jpeg_with(zoo.segment(0xE0, b"JFIF\0\1\2\0\0\1\0\1\1\1" + bytes(3))),
        "JFIF thumbnail",
    ),
    "EXIF within Photoshop's resources alone": (
        jpeg_with(zoo.segment(0xED, b"Photoshop 3.0\0" + zoo.resource(0x0422, b"II*\0\x08\0\0\0"))),
        "EXIF within Photoshop resources",
    ),
    "AVIF of 10 bits": (
        imagecodecs.avif_encode(zoo.photo().astype(np.uint16) * 4, bitspersample=10),
        "10 bits a sample",
    ),
    "another program's segment": (jpeg_with(zoo.segment(0xEC, b"Ducky\0\1")), "segment APP12 Ducky"),
}


@pytest.mark.parametrize("name", LOSSES)
def test_what_cannot_be_carried_is_said(name: str) -> None:
    data, said = LOSSES[name]
    assert any(said in line for line in published(data)[1])


def test_what_the_picture_loses_is_said_also_where_no_metadata_are_wanted() -> None:
    data, said = LOSSES["a gain map"]
    assert any(said in line for line in published(data, "none")[1])


def test_xmp_too_long_for_a_jpeg_is_published_with_its_rights_alone() -> None:
    long = XMP.replace(b"<dc:rights>", b"<dc:description>" + b"word " * 20_000 + b"</dc:description><dc:rights>")
    image, lost = published(zoo.saved(zoo.photo(), "AVIF", xmp=long))
    assert image.format == "JPEG"
    assert image.info["xmp"].count(b"dc:rights") == XMP.count(b"dc:rights")
    assert b"word" not in image.info["xmp"]
    assert any("XMP: too long for this format" in line for line in lost)


RIGHTS_HIDDEN = {
    "damaged": XMP.replace(b"</rdf:RDF>", b""),
    "deep": XMP.replace(b"<dc:rights>", b"<dc:rights>" + b"<a>" * 3000 + b"</a>" * 3000),
    **{
        f"of many {what}": XMP.replace(b"<dc:rights>", part * 60_000 + b"<dc:rights>")
        for what, part in {
            "elements": b"<a/>",
            "attributes": b"<a b='' c=''/>",
            "namespaces": b"<a xmlns:b='c'/>",
            "comments": b"<!---->",
            "instructions": b"<?a?>",
            "CDATA sections": b"<![CDATA[a]]>b",
        }.items()
    },
}


@pytest.mark.parametrize("name", RIGHTS_HIDDEN)
def test_rights_that_cannot_be_found_in_xmp_are_said_to_be_lost(name: str) -> None:
    lost = published(zoo.saved(zoo.photo(), "WEBP", xmp=RIGHTS_HIDDEN[name]), "rights")[1]
    assert any("its rights were not found" in line for line in lost)


def test_rights_are_found_in_xmp_that_says_its_encoding_among_comments_and_many_properties() -> None:
    others = b"<!-- a --><?b c?><dc:subject/>\n" * 10_000
    packet = b'<?xml version="1.0" encoding="UTF-8"?>' + XMP.replace(b"<dc:rights>", others + b"<dc:rights>")
    image, lost = published(zoo.saved(zoo.photo(), "WEBP", xmp=packet), "rights")
    found = xmp_of(image)
    assert not any("XMP" in line for line in lost)
    assert "(c) é".encode() in found
    assert not any(part in found for part in (b"dc:subject", b"<!--", b"<?b"))


def test_what_describes_a_gain_map_is_found_in_one_pass_however_many_names_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passes = 0

    def counted(packet: bytes, names: bytes) -> bytes:
        nonlocal passes
        passes += 1
        return without_elements(packet, names)

    without_elements = xmp._without_elements
    monkeypatch.setattr(xmp, "_without_elements", counted)
    of_size = {}
    for size in (10, 20_000):
        names = b"".join(b"<c:n%d>1</c:n%d><c:n%d />" % (number, number, number) for number in range(size))
        space = b'<c:all xmlns:c="http://ns.google.com/photos/1.0/container/"/>'
        packet = XMP.replace(b"<dc:rights>", space + names + b"<dc:rights>")
        passes = 0
        image, _ = published(zoo.saved(zoo.photo(), "WEBP", xmp=packet))
        of_size[size] = passes
        assert b"<c:" not in image.info["xmp"]
        assert b"<dc:rights>" in image.info["xmp"]
    assert 0 < of_size[20_000] == of_size[10]  # name by name it would take minutes


def test_a_png_s_texts_that_hold_much_are_carried_and_not_read() -> None:
    bomb = zlib.compress(bytes(4 << 20))
    texts = [
        raw_profile(b"iptc", RESOURCES),
        *(zoo.chunk(b"zTXt", b"Raw profile type x%d\0\0" % number + bomb) for number in range(100)),
        *(zoo.chunk(b"zTXt", b"Raw profile type exif\0\0" + bomb) for _ in range(50)),
    ]
    blocks = decode(zoo.with_png_chunks(zoo.saved(zoo.photo(), "PNG"), *texts), zoo.LIMITS).blocks
    assert len(blocks.texts) == 100
    assert blocks.photoshop == RESOURCES
    assert any("'Raw profile type exif'" in line for line in blocks.lost)


def test_a_png_s_damaged_texts_are_inflated_once_and_cost_no_other_text_and_no_profile() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    damaged = [
        zoo.chunk(b"zTXt", b"Raw profile type %s\0\0" % name + b"x") for name in (b"exif", b"APP1", b"xmp", b"8bim")
    ]
    packet = zoo.chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0x")
    colours = zoo.chunk(b"iCCP", b"a\0\0" + zlib.compress(profile))
    chunks = (*damaged * 4, packet, packet, colours, colours, raw_profile(b"iptc", RESOURCES))
    blocks = decode(zoo.with_png_chunks(zoo.saved(zoo.photo(), "PNG"), *chunks), zoo.LIMITS).blocks
    assert blocks.profile == profile
    assert blocks.photoshop == RESOURCES
    for said in (
        "'Raw profile type xmp': damaged",
        "'Raw profile type xmp': a second",
        "'XML:com.adobe.xmp': a second",
    ):
        assert any(said in line for line in blocks.lost)
    assert "ICC profile: a second one" in blocks.lost


def test_a_gif_s_comment_and_xmp_are_published() -> None:
    gif = zoo.saved(Image.fromarray(zoo.photo()), "GIF", comment=b"by Anna")
    extension = b"!\xff\x0bXMP DataXMP" + XMP + bytes((1, *range(255, -1, -1), 0))
    at = gif.index(b"!\xfe")
    image, lost = published(gif[:at] + extension + gif[at:])
    assert image.info["Comment"] == "by Anna"
    assert b"dc:rights" in image.info["xmp"]
    assert not lost


class Searched(bytes):
    """Counts how often it is searched, each time once through at most."""

    searches = 0

    def find(self, *args: Any) -> int:
        self.searches += 1
        return super().find(*args)


def test_a_gif_of_many_packets_without_an_end_is_searched_no_more_often_than_one_of_few() -> None:
    gif = zoo.saved(Image.fromarray(zoo.photo()), "GIF")
    few, many = (Searched(gif + b"!\xff\x0bXMP DataXMP" * packets) for packets in (10, 50_000))
    for data in (few, many):
        assert decode(data, zoo.LIMITS).blocks.xmp is None
    assert 2 <= many.searches == few.searches  # for a beginning and an end; from each beginning it takes half an hour


EMPTY_SETS = zoo.resource(0x0404, zoo.data_set(2, 80, b"") * 150_000)
SUB_BLOCKS = b"\2ab" * 200_000 + b"\0"
# What is read of each, and whether for its rights.
SMALL_PARTS: dict[str, tuple[bytes, Keep]] = {
    "a GIF's comment": (zoo.with_gif_extensions(GIF, b"!\xfe" + SUB_BLOCKS), "all"),
    "a GIF's manifest": (zoo.with_gif_extensions(GIF, b"!\xff\x0bC2PA_GIF\1\0\0" + SUB_BLOCKS), "all"),
    "a GIF's frames": (GIF[:-1] + b"!\xf9\x04\0\0\0\0\0" * 100_000 + b";", "all"),
    "IPTC's data sets": (
        jpeg_with(
            *(
                zoo.segment(0xED, b"Photoshop 3.0\0" + EMPTY_SETS[at : at + 60_000])
                for at in range(0, len(EMPTY_SETS), 60_000)
            )
        ),
        "rights",
    ),
}


@pytest.mark.parametrize("name", SMALL_PARTS)
def test_many_small_parts_take_no_more_memory_than_their_file(name: str) -> None:
    data, keep = SMALL_PARTS[name]
    published(GIF)  # what is imported counts once
    tracemalloc.start()
    try:
        published(data, keep)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 4 * len(data) + (1 << 20)  # an object for each takes twenty times as much


def test_a_gif_s_manifest_is_joined_and_one_of_too_many_parts_is_lost_and_named() -> None:
    head = b"!\xff\x0bC2PA_GIF\1\0\0"
    sound = decode(zoo.with_gif_extensions(GIF, head + b"\3abc\2de\0"), zoo.LIMITS).blocks
    assert (sound.manifest, sound.lost) == (b"abcde", (MANIFEST_LOST,))
    endless = decode(GIF + head + b"\1a" * 300_000, zoo.LIMITS).blocks
    assert (endless.manifest, endless.lost) == (None, (MANIFEST_LOST,))


def test_a_gain_map_that_is_not_published_is_not_announced_either() -> None:
    packet = XMP.replace(
        b"tiff:Orientation", b"xmlns:hdrgm='http://ns.adobe.com/hdr-gain-map/1.0/' hdrgm:Version='1.0' tiff:Orientation"
    )
    image, _ = published(zoo.saved(zoo.photo(), "JPEG", xmp=packet))
    assert b"hdrgm:Version" not in xmp_of(image)
    assert b"WebStatement" in xmp_of(image)


# ------------------------------------------------------------------------------------------------------- rights, none


def everything() -> bytes:
    block = zoo.exif_block(6)
    return jpeg_with(
        zoo.segment(0xE1, block),
        zoo.segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP),
        zoo.segment(0xED, b"Photoshop 3.0\0" + RESOURCES),
        zoo.segment(0xFE, b"a comment"),
    )


def test_rights_are_published_without_places_captions_and_cameras() -> None:
    image, _ = published(everything(), "rights")
    exif = image.getexif()
    assert exif[zoo.ARTIST] == "Ada"
    assert not exif.get_ifd(zoo.GPS_IFD)
    assert not exif.get_ifd(zoo.EXIF_IFD)
    found = image.getxmp()["xmpmeta"]["RDF"]["Description"]
    assert found["WebStatement"] == "https://example.org/licence"
    assert found["Credit"] == "Agency"
    assert found["Licensor"]["Seq"]["li"]["LicensorURL"] == "https://example.org/buy"
    assert found["rights"]["Alt"]["li"]["text"] == "(c) é"
    assert not {"GPSLatitude", "subject", "Thumbnails", "Orientation"} & set(found)
    iptc = IptcImagePlugin.getiptcinfo(image)
    assert iptc is not None
    assert set(iptc) == {(1, 90), (2, 80), (2, 110), (2, 116), (2, 118)}
    assert "comment" not in image.info


def test_none_publishes_the_picture_alone_and_its_density() -> None:
    image, lost = published(zoo.saved(zoo.photo(), "JPEG", dpi=(300, 300), exif=zoo.exif_block(6), xmp=XMP), "none")
    assert image.size == (48, 64)
    assert not {"exif", "xmp", "photoshop", "comment"} & set(image.info)
    assert image.info["dpi"] == (300, 300)
    assert lost == ()


def test_pixels_do_not_depend_on_what_metadata_is_damaged() -> None:
    data = everything()
    for at in range(24, data.index(b"a comment"), 7):
        damaged = data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]
        try:
            image = decode(damaged, zoo.LIMITS)
        except BadInput:  # a segment's length
            continue
        assert image.pixels.shape in ((64, 48, 3), (48, 64, 3))
        assert np.asarray(Image.open(io.BytesIO(encode(image.samples, image).data))).shape == image.pixels.shape
