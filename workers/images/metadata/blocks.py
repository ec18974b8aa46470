"""What a file carries beside its picture: found as bytes, and made ready to be published again."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final, Literal, TypeAlias

from workers.images.metadata import photoshop, tiff, xmp

__all__ = ["MANIFEST", "MANIFEST_LOST", "Blocks", "Capacity", "Density", "Keep", "Publishable"]

Keep: TypeAlias = Literal["all", "rights", "none"]

# How lines of what was lost begin that are of content credentials (C2PA); and what they say unless it is signed again.
MANIFEST: Final = "C2PA manifest"
MANIFEST_LOST: Final = f"{MANIFEST}: its signature is of the unchanged picture"

# Copyright and people, of the first directory and of Exif's; where they stand, the resolution is a part of the form.
_RIGHTS_TAGS: Final = {
    tiff.MAIN: frozenset({0x013B, 0x8298, 0x9C9D, tiff.ORIENTATION, 0x011A, 0x011B, 0x0128}),
    tiff.EXIF: frozenset({0xA437}),
}
# Width and height change places with the picture.
_SIZES: Final = {
    tiff.MAIN: {0x0100: 0x0101, 0x0101: 0x0100, 0x011A: 0x011B, 0x011B: 0x011A},
    tiff.EXIF: {0xA002: 0xA003, 0xA003: 0xA002, 0xA20E: 0xA20F, 0xA20F: 0xA20E},
}
_RIGHTS_TEXTS: Final = (b"Copyright", b"Author", b"Creator", b"Disclaimer", b"License", b"Licence")


@dataclass(frozen=True)
class Density:
    """Pixels across and down for each ``unit``; of ``aspect``, only their ratio means anything."""

    across: int
    down: int
    unit: Literal["aspect", "inch", "cm", "metre"]

    @property
    def turned(self) -> Density:
        return Density(self.down, self.across, self.unit)

    def per(self, unit: Literal["cm", "metre"]) -> Density:
        """The same in another unit, rounded; aspects stay."""
        if self.unit in ("aspect", unit):
            return self
        per_metre = {"inch": 1 / 0.0254, "cm": 100.0, "metre": 1.0}[self.unit]
        factor = per_metre * (1.0 if unit == "metre" else 0.01)
        return Density(round(self.across * factor), round(self.down * factor), unit)


@dataclass(frozen=True)
class Capacity:
    """What a format holds: bytes of EXIF and of an XMP packet, and whether a packet may be carried on elsewhere."""

    exif: int = 16 << 20
    xmp: int = xmp.MAX_BYTES
    has_xmp_extension: bool = False


@dataclass(frozen=True)
class Publishable:
    """What may stand in the published file; each as :class:`Blocks` has it."""

    exif: bytes | None = None
    xmp: bytes | None = None
    xmp_extension: tuple[bytes, ...] = ()
    photoshop: bytes | None = None
    texts: tuple[bytes, ...] = ()
    density: Density | None = None


@dataclass(frozen=True)
class Blocks:
    """As they were found.

    Attributes:
        exif: a TIFF block, without the header that JPEG puts before it.
        xmp: the packet.
        xmp_extension: bodies of JPEG segments that carry on a long packet.
        photoshop: image resources; IPTC's IIM is one of them.
        texts: (name, whole block) of a PNG's text chunks, or of a JPEG's comments.
        density: as the format itself states it; EXIF may say it again.
        profile: ICC.
        manifest: C2PA's manifest store, unchecked (C2PA 2.2, appendix A).
        lost: a line for each thing that this system cannot carry.
    """

    exif: bytes | None = None
    xmp: bytes | None = None
    xmp_extension: tuple[bytes, ...] = ()
    photoshop: bytes | None = None
    texts: tuple[tuple[bytes, bytes], ...] = ()
    density: Density | None = None
    profile: bytes | None = None
    manifest: bytes | None = None
    lost: tuple[str, ...] = field(default=())

    @property
    def orientation(self) -> int:
        """1 to 8: what EXIF says, or XMP where EXIF says nothing. Nothing else of them needs to be readable."""
        stated = tiff.orientation_of(self.exif) if self.exif else None
        if stated is None and self.xmp and xmp.readable(self.xmp):
            stated = xmp.orientation_of(self.xmp)
        return stated or 1

    def publishable(self, keep: Keep, capacity: Capacity) -> tuple[Publishable, list[str]]:
        """Upright, without pictures of the original; and a line for each thing that could not be kept.

        Args:
            capacity: of the format that is written.
        """
        density = self.density.turned if self.density and self.orientation >= 5 else self.density
        if keep == "none":
            return Publishable(density=density), list(self.lost)
        lost = list(self.lost)
        exif = self._exif(keep, capacity.exif, lost)
        packet, extension = self._xmp(keep, lost)
        if packet and len(packet) > capacity.xmp:
            packet, extension = self._short_xmp(packet, capacity.xmp, lost), ()
        if extension and not capacity.has_xmp_extension:
            lost.append("XMP extension: this format has none")
        resources = None
        if self.photoshop:
            resources, damaged = (photoshop.cleaned if keep == "all" else photoshop.rights_only)(self.photoshop)
            lost += [*damaged, *self._unread_copies()]
        texts = tuple(block for name, block in self.texts if keep == "all" or name in _RIGHTS_TEXTS)
        return Publishable(exif, packet, extension, resources, texts, density), lost

    def _exif(self, keep: Keep, limit: int, lost: list[str]) -> bytes | None:
        if self.exif is None:
            return None
        parsed = tiff.parse(self.exif)
        if parsed is None:
            lost.append("EXIF: not a TIFF block")
            return None
        turned = self.orientation >= 5

        def change(directory: int, entry: tiff.Entry) -> tiff.Entry | None:
            if keep == "rights" and entry.tag not in _RIGHTS_TAGS.get(directory, ()):
                return None
            if directory == tiff.MAIN and entry.tag == tiff.ORIENTATION:
                return tiff.Entry(tiff.ORIENTATION, 3, 1, parsed.short(1))
            other = _SIZES.get(directory, {}).get(entry.tag) if turned else None
            return entry._replace(tag=other) if other else entry

        changed = parsed.changed(change)
        block = tiff.write(changed, limit)
        lost += changed.lost
        return block

    def _xmp(self, keep: Keep, lost: list[str]) -> tuple[bytes | None, tuple[bytes, ...]]:
        if self.xmp is None:
            return None, ()
        if not xmp.readable(self.xmp):
            lost.append("XMP: too long, not UTF-8, with a document type, or with many names for one namespace")
            return None, ()
        if keep == "rights":
            return self._rights(self.xmp, lost), ()
        extension = self.xmp_extension
        if xmp.holds_picture(b"".join(extension)):
            lost.append("XMP extension: holds a picture of the original")
            extension = ()
        packet = xmp.cleaned(self.xmp)
        if xmp.holds_picture(packet):
            lost.append("XMP: holds a picture of the original; its rights are kept")
            return self._rights(packet, lost), ()
        return packet, extension

    def _rights(self, packet: bytes, lost: list[str]) -> bytes | None:
        if not xmp.parses(packet):
            lost.append("XMP: damaged, or too large to be searched; its rights were not found")
            return None
        return xmp.rights_only(packet)

    def _short_xmp(self, packet: bytes, limit: int, lost: list[str]) -> bytes | None:
        rights = self._rights(packet, lost)
        fits = rights is not None and len(rights) <= limit
        kept = "its rights are kept" if fits else "nothing of it is kept"
        lost.append(f"XMP: too long for this format ({len(packet):,} bytes); {kept}")
        return rights if fits else None

    def _unread_copies(self) -> list[str]:
        """Of EXIF, XMP and profile within Photoshop's resources, those that are no copies: the file has no other."""
        assert self.photoshop is not None
        present = {"EXIF": self.exif, "XMP": self.xmp, "ICC profile": self.profile}
        found = photoshop.copies(self.photoshop)
        return [f"{name} within Photoshop resources" for name in sorted(found) if not present[name]]

    def without(self, *lines: str) -> Blocks:
        """The same, with lines about what was lost on the way."""
        return replace(self, lost=(*self.lost, *lines))
