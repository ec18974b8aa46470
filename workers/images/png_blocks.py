"""What a PNG's ancillary chunks hold (PNG third edition; raw profiles as ImageMagick writes them), and how they are
written."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Final

from workers.images.metadata import MANIFEST_LOST, Blocks, Density, Publishable
from workers.images.metadata.photoshop import IPTC, resource

__all__ = ["Found", "chunk", "comment", "with_metadata", "with_profile"]

_HEADER_END: Final = 33  # signature and IHDR
_EXIF_HEADER: Final = b"Exif\0\0"
_XMP_KEYWORD: Final = b"XML:com.adobe.xmp"
_XMP_HEADER: Final = b"http://ns.adobe.com/xap/1.0/\0"
_RAW: Final = b"Raw profile type "
# Texts that hold metadata, and what is read of them; any other text is carried as it is, still compressed.
_RAW_NAMES: Final = frozenset(_RAW + kind for kind in (b"exif", b"APP1", b"xmp", b"8bim", b"iptc"))
# Of each of them, and of the profile; each is inflated once, sound or not.
_MAX_INFLATED: Final = 4 << 20
_TEXTS: Final = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_RAW_PROFILE: Final = re.compile(rb"\s{0,8}([\w ]{1,16})\n\s{0,16}(\d{1,9})\n([0-9a-fA-F\s]*)\Z")


class Found:
    """Takes in the chunks that are no picture, in their order."""

    def __init__(self) -> None:
        self._exif: bytes | None = None
        self._raw: dict[bytes, bytes] = {}
        self._xmp: bytes | None = None
        self._profile: bytes | None = None
        self._manifest: bytes | None = None
        self._density: Density | None = None
        self._texts: list[tuple[bytes, bytes]] = []
        self._lost: list[str] = []
        self._tried: set[bytes] = set()

    def note(self, kind: bytes, body: bytes) -> None:
        """One chunk's type and body."""
        if kind in _TEXTS:
            self._note_text(kind, body)
        elif kind == b"eXIf":
            self._exif = self._exif or body
        elif kind == b"iCCP":
            self._note_profile(body)
        elif kind == b"pHYs" and len(body) == 9:
            across, down, unit = struct.unpack(">IIB", body)
            self._density = Density(across, down, "metre" if unit == 1 else "aspect")
        elif kind == b"caBX":
            self._manifest = self._manifest or body
            self._lose(MANIFEST_LOST)
        elif kind != b"IEND":
            self._lose(f"chunk {kind.decode('ascii', 'replace')}")

    def trailer(self, size: int) -> None:
        """So many bytes follow the picture."""
        if size:
            self._lose(f"{size:,} bytes after the picture")

    def blocks(self) -> Blocks:
        exif = self._exif or self._raw.get(b"exif") or self._raw.get(b"APP1")
        xmp = self._xmp or self._raw.get(b"xmp")
        app1 = self._raw.get(b"APP1", b"")
        if app1.startswith(_XMP_HEADER):
            exif, xmp = None if exif is app1 else exif, xmp or app1[len(_XMP_HEADER) :]
        resources = self._raw.get(b"8bim") or self._raw.get(b"iptc")
        if resources and resources[:1] == b"\x1c":  # bare IIM, as some programs write it
            resources = resource(IPTC, resources)
        return Blocks(
            exif=exif.removeprefix(_EXIF_HEADER) if exif else None,
            xmp=xmp,
            photoshop=resources,
            texts=tuple(self._texts),
            density=self._density,
            profile=self._profile,
            manifest=self._manifest,
            lost=tuple(self._lost),
        )

    def _lose(self, line: str) -> None:
        if line not in self._lost and len(self._lost) < 32:
            self._lost.append(line)

    def _note_text(self, kind: bytes, body: bytes) -> None:
        name = body[:80].split(b"\0")[0]
        if name != _XMP_KEYWORD and name not in _RAW_NAMES:
            self._texts.append((name, chunk(kind, body)))
        elif name in self._tried:
            self._lose(f"text {name.decode('latin-1')!r}: a second one")
        else:
            self._tried.add(name)
            text = self._text(kind, name, body)
            if name == _XMP_KEYWORD:
                self._xmp = text
            else:
                self._note_raw(name, text)

    def _note_raw(self, name: bytes, text: bytes | None) -> None:
        found = _RAW_PROFILE.match(text) if text else None
        if found is None:
            self._lose(f"text {name.decode('latin-1')!r}: not a profile")
            return
        try:
            data = bytes.fromhex(found[3].decode("ascii"))
        except ValueError:
            self._lose(f"text {name.decode('latin-1')!r}: not a profile")
            return
        self._raw[name.removeprefix(_RAW)] = data[: int(found[2])]

    def _text(self, kind: bytes, name: bytes, body: bytes) -> bytes | None:
        """The text of one chunk, as bytes; None where it is damaged or too long."""
        rest = body[len(name) + 1 :]
        if kind == b"tEXt":
            return rest
        compressed = kind == b"zTXt"
        if compressed:
            rest = rest[1:]
        else:
            compressed = rest[:1] == b"\1"
            rest = rest[2:].split(b"\0", 2)[-1]
        text = _inflated(rest) if compressed else rest
        if text is None:
            self._lose(f"text {name.decode('latin-1')!r}: damaged, or longer than {_MAX_INFLATED >> 20} MiB")
        return text

    def _note_profile(self, body: bytes) -> None:
        if b"iCCP" in self._tried:
            self._lose("ICC profile: a second one")
            return
        self._tried.add(b"iCCP")
        _, _, rest = body.partition(b"\0")
        self._profile = _inflated(rest[1:])
        if self._profile is None:
            self._lose("ICC profile: damaged; the picture was read as sRGB")


def _inflated(data: bytes) -> bytes | None:
    """None where it is damaged or too long."""
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(data, _MAX_INFLATED)
    except zlib.error:
        return None
    return text if inflater.eof else None


def with_metadata(data: bytes, carried: Publishable, colours: Mapping[bytes, bytes]) -> bytes:
    """An encoder's PNG with metadata, and with the chunks that say what its colours mean, put in after its header."""
    chunks = [chunk(kind, body) for kind, body in colours.items()]
    return b"".join([data[:_HEADER_END], *chunks, *_written(carried), data[_HEADER_END:]])


def with_profile(data: bytes, profile: bytes | None) -> bytes:
    """A PNG with an ICC profile put in after its header."""
    if profile is None:
        return data
    return data[:_HEADER_END] + chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(profile)) + data[_HEADER_END:]


def comment(text: bytes) -> bytes:
    """A text chunk with a JPEG's comment, which is text in no encoding that is known."""
    return chunk(b"tEXt", b"Comment\0" + text.replace(b"\0", b" "))


def _written(carried: Publishable) -> Iterator[bytes]:
    if carried.density:
        density = carried.density.per("metre")
        yield chunk(b"pHYs", struct.pack(">IIB", density.across, density.down, density.unit == "metre"))
    if carried.exif:
        yield chunk(b"eXIf", carried.exif)
    if carried.xmp:
        yield chunk(b"iTXt", _XMP_KEYWORD + bytes(5) + carried.xmp)
    if carried.photoshop:
        lines = re.findall(".{1,72}", carried.photoshop.hex())
        text = f"\niptc\n{len(carried.photoshop):8}\n" + "\n".join(lines) + "\n"
        yield chunk(b"zTXt", _RAW + b"iptc\0\0" + zlib.compress(text.encode()))
    yield from carried.texts


def chunk(kind: bytes, body: bytes) -> bytes:
    """One chunk with its length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
