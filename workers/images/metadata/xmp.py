"""XMP packets (ISO 16684-1), changed in place: what is not named here stays as it was, byte by byte."""

from __future__ import annotations

import re
from typing import Final
from xml.dom import Node, minidom
from xml.parsers.expat import ExpatError, ParserCreate

__all__ = [
    "MAX_BYTES",
    "cleaned",
    "has_gain_map",
    "holds_picture",
    "orientation_of",
    "parses",
    "readable",
    "rights_only",
]

MAX_BYTES: Final = 1 << 22
# Each name of a namespace is sought in the whole packet; writers use one.
_MAX_PREFIXES: Final = 8
# Elements, attributes, names of namespaces, comments, instructions and CDATA sections: more would take seconds, and a
# document as deep as Python's stack could not be written.
_MAX_NODES, _MAX_DEPTH = 50_000, 100
# What an XML declaration says, which stands at the beginning or is an error.
_ENCODING: Final = re.compile(rb"(?:\xef\xbb\xbf)?<\?xml\s[^>]{0,256}?\sencoding\s{0,64}=\s{0,64}[\"']([^\"'>]{0,64})")

_TIFF = b"http://ns.adobe.com/tiff/1.0/"
_XMP = b"http://ns.adobe.com/xap/1.0/"
_GAIN_MAP = b"http://ns.adobe.com/hdr-gain-map/1.0/"
_CONTAINER = b"http://ns.google.com/photos/1.0/container/"
_CAMERA = b"http://ns.google.com/photos/1.0/camera/"
# Pictures of the original within the packet or its extension: thumbnails, and what cameras keep for blurring later.
_PICTURES: Final = (b"xmpGImg:image", b"GImage:Data", b"GDepth:Data", b"GCreations:")

# IPTC Photo Metadata 2023.2, section "rights", with PLUS and Creative Commons: whole namespaces, and single properties.
_RIGHTS_NAMESPACES: Final = frozenset(
    {
        "http://ns.adobe.com/xap/1.0/rights/",
        "http://ns.useplus.org/ldf/xmp/1.0/",
        "http://creativecommons.org/ns#",
    }
)
_RIGHTS: Final = {
    "http://purl.org/dc/elements/1.1/": {"creator", "rights", "publisher"},
    "http://ns.adobe.com/photoshop/1.0/": {"AuthorsPosition", "Credit", "Source", "Instructions"},
    "http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/": {"CreatorContactInfo"},
    "http://ns.adobe.com/tiff/1.0/": {"Artist", "Copyright"},
}
_RDF: Final = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"


def readable(packet: bytes) -> bool:
    """Whether this is UTF-8, and says of itself nothing else, of a bounded length, without a document type, which could
    make a reader expand it, and without many names for one namespace."""
    if len(packet) > MAX_BYTES or any(part in packet for part in (b"\0", b"<!DOCTYPE", b"<!ENTITY")):
        return False
    return _is_utf8(packet) and all(
        len(_prefixes(packet, n)) <= _MAX_PREFIXES for n in (_TIFF, _XMP, _GAIN_MAP, _CONTAINER, _CAMERA)
    )


def orientation_of(packet: bytes) -> int | None:
    """``tiff:Orientation``, 1 to 8."""
    for pattern in _orientations(packet):
        if found := pattern.search(packet):
            return int(found[2])
    return None


def has_gain_map(packet: bytes) -> bool:
    return _GAIN_MAP in packet


def holds_picture(packet: bytes) -> bool:
    return any(name in packet for name in _PICTURES)


def cleaned(packet: bytes) -> bytes:
    """Upright, without thumbnails, and without what describes other pictures in the file, which are not written."""
    for pattern in _orientations(packet):
        packet = pattern.sub(rb"\g<1>1", packet)
    for prefix in _prefixes(packet, _XMP):
        packet = _without_elements(packet, re.escape(prefix) + b":Thumbnails")
    for prefix in [*_prefixes(packet, _GAIN_MAP), *_prefixes(packet, _CONTAINER)]:
        packet = _without_elements(_without_attributes(packet, prefix), re.escape(prefix) + rb":[\w.-]{1,64}")
    for prefix in _prefixes(packet, _CAMERA):
        packet = _without_attributes(packet, prefix)
    return packet


def parses(packet: bytes) -> bool:
    """Whether it is well-formed XML, of a bounded number of nodes and depth."""
    nodes = depth = 0

    def count(*_: object) -> None:
        nonlocal nodes
        nodes += 1
        if nodes > _MAX_NODES:
            raise ValueError

    def opened(_: str, attributes: list[str]) -> None:
        nonlocal nodes, depth
        nodes, depth = nodes + len(attributes) // 2, depth + 1
        count()
        if depth > _MAX_DEPTH:
            raise ValueError

    def closed(_: str) -> None:
        nonlocal depth
        depth -= 1

    parser = ParserCreate("utf-8", namespace_separator=" ")
    parser.ordered_attributes = True
    parser.StartElementHandler, parser.EndElementHandler = opened, closed
    parser.StartNamespaceDeclHandler = parser.StartCdataSectionHandler = count
    parser.CommentHandler = parser.ProcessingInstructionHandler = count
    try:
        parser.Parse(packet, True)
    except (ExpatError, ValueError):
        return False
    return True


def rights_only(packet: bytes) -> bytes | None:
    """Of a packet that parses, one with the properties that say whose picture it is, and what may be done with it; None
    without any."""
    document = minidom.parseString(packet.decode())
    kept = 0
    for description in document.getElementsByTagNameNS(_RDF, "Description"):
        if description.parentNode is None or description.parentNode.localName != "RDF":
            continue  # within a property
        kept += _reduce(description)
    root = document.documentElement
    if not kept or root is None:
        return None
    return (
        b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        + root.toxml("utf-8").split(b"?>", 1)[-1]
        + (b'<?xpacket end="w"?>')
    )


def _reduce(description: minidom.Element) -> int:
    """Drop all properties but those of rights; how many are left."""
    kept = 0
    for attribute in list(description.attributes.values()):
        if attribute.name.startswith("xmlns") or attribute.namespaceURI == _RDF:
            continue
        if _is_right(attribute):
            kept += 1
        else:
            description.removeAttributeNode(attribute)
    children = [child for child in description.childNodes if child.nodeType == Node.ELEMENT_NODE and _is_right(child)]
    description.childNodes[:] = children  # one by one, each removal moves all that follow
    return kept + len(children)


def _is_utf8(packet: bytes) -> bool:
    declared = _ENCODING.match(packet)
    if declared and declared[1].lower() not in (b"utf-8", b"utf8"):
        return False
    try:
        packet.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_right(node: minidom.Node) -> bool:
    space = str(node.namespaceURI)
    return space in _RIGHTS_NAMESPACES or node.localName in _RIGHTS.get(space, ())


def _prefixes(packet: bytes, namespace: bytes) -> list[bytes]:
    """The names by which a packet calls a namespace; usually one, and the usual one."""
    if namespace not in packet:
        return []
    found = re.findall(rb"xmlns:([\w.-]{1,64})\s*=\s*[\"']" + re.escape(namespace) + rb"[\"']", packet)
    return sorted(set(found))


def _orientations(packet: bytes) -> list[re.Pattern[bytes]]:
    """Two groups: what precedes the number, and the number."""
    patterns = []
    for prefix in _prefixes(packet, _TIFF):
        name = re.escape(prefix) + rb":Orientation"
        patterns += [
            re.compile(rb"(\b" + name + rb"\s{0,64}=\s{0,64}[\"']\s{0,64})([1-8])(?=\s{0,64}[\"'])"),
            re.compile(rb"(<" + name + rb"\s{0,64}>\s{0,64})([1-8])(?=\s{0,64}<)"),
        ]
    return patterns


def _without_attributes(packet: bytes, prefix: bytes) -> bytes:
    return re.sub(rb"\s" + re.escape(prefix) + rb":[\w.-]{1,64}\s{0,64}=\s{0,64}(?:\"[^\"]*\"|'[^']*')", b"", packet)


def _without_elements(packet: bytes, names: bytes) -> bytes:
    """Without the elements whose names match a pattern; one that has no end stays, with all behind it."""
    kept, position = [], 0
    start = re.compile(rb"<(" + names + rb")(?=[\s/>])")
    while found := start.search(packet, position):
        end, closing = packet.find(b">", found.end()), b"</" + found[1] + b">"
        if end > 0 and packet[end - 1] != ord("/"):
            end = packet.find(closing, end)
            end += len(closing) - 1 if end > 0 else 0
        if end < 0:
            break
        kept.append(packet[position : found.start()])
        position = end + 1
    return b"".join([*kept, packet[position:]])
