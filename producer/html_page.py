"""HTML pages that need nothing else and run nothing: images are embedded, and every text is escaped."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Final

from producer.batch import Submission
from tasks.formats import format_of

__all__ = ["Images", "document", "submitted_image", "table", "text"]

# Images are embedded as they are: a page stays one that a browser opens.
LARGEST_IMAGE: Final = 2 * 2**20
_LARGEST_PAGE: Final = 48 * 2**20
_POLICY: Final = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE: Final = """
:root { color-scheme: light dark; --ink: #222; --soft: #595f66; --paper: #fff; --line: #ccc; --plate: #f1f2f4;
  --before: #6b7683; --after: #1d5fd1 }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --soft: #a9b1ba; --paper: #14181d; --line: #3a424b;
  --plate: #20262d; --before: #95a0ad; --after: #7fb0ff } }
@media print { :root { color-scheme: light; --ink: #000; --soft: #444; --paper: #fff; --line: #bbb; --plate: #f1f2f4;
  --before: #6b7683; --after: #1d5fd1 } }
body { font: 15px/1.4 system-ui, sans-serif; margin: 2rem auto; padding: 0 1rem; max-width: 72rem; color: var(--ink);
  background: var(--paper) }
section { border-top: 1px solid var(--line); padding: 1rem 0; display: flex; gap: 1rem; flex-wrap: wrap }
h1 { font-size: 1.3rem; overflow-wrap: anywhere }
h2 { flex-basis: 100%; font-size: 1rem; margin: 0; overflow-wrap: anywhere } p { margin: 0; max-width: 46rem }
figure { margin: 0; width: 14rem } img { max-width: 100%; max-height: 14rem; display: block }
figcaption { font-size: .85rem; overflow-wrap: anywhere }
.none { background: var(--plate); padding: 4rem 1rem; color: var(--soft) }
.pair figure { width: min(26rem, 47%) }
.pair img { width: 100%; max-height: none; aspect-ratio: 1; object-fit: contain; background: var(--plate) }
.square { position: relative; overflow: hidden; aspect-ratio: 1; background: var(--plate) }
.square img { position: absolute; aspect-ratio: auto; max-width: none; background: none }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .2rem 1rem .2rem 0; overflow-wrap: anywhere }
th { font-weight: 600; width: 12rem }
.three figure { flex: 1 1 15rem; max-width: 100% } .three img { max-height: 24rem; max-width: 100% }
.big { font-size: 2rem; font-weight: 650; flex-basis: 100%; font-variant-numeric: tabular-nums }
.before { color: var(--before) } .after { color: var(--after) } .soft { color: var(--soft); flex-basis: 100% }
.bars td { font-variant-numeric: tabular-nums } .bars th { width: 9rem; overflow-wrap: normal }
.bars td.wide { width: 50% }
.bar { display: block; height: .55rem; margin: .2rem 0; min-width: 1px; print-color-adjust: exact }
.bar.before { background: var(--before) } .bar.after { background: var(--after) }
@media print { body { margin: 0 } section, tr, figure { break-inside: avoid } }
@media (max-width: 40rem) { body { margin: 1rem auto } .bars th { width: auto } th { width: 7rem } }
"""


def document(title: str, body: str) -> str:
    """A page with a title (text) and a body (HTML)."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{text(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><style>{_STYLE}</style></head>'
        f"<body><h1>{text(title)}</h1>{body}</body></html>\n"
    )


class Images:
    """The images of one page, which grows no larger than a browser opens."""

    def __init__(self, largest: int = LARGEST_IMAGE) -> None:
        """`largest`: bytes of an image that is still shown."""
        self._largest = largest
        self._left = _LARGEST_PAGE

    def figure(self, data: bytes | None, caption: str, transform: str = "") -> str:
        """An image with a text below it.

        Args:
            transform: how CSS shall mirror or turn the image.
        """
        style = f' style="transform: {transform}"' if transform else ""
        return f"<figure>{self._image(data, style)}<figcaption>{text(caption)}</figcaption></figure>"

    def cropped(self, data: bytes | None, caption: str, place: str) -> str:
        """An image of which a square shows a part; `place` is its position and size in that, as CSS."""
        image = self._image(data, f' style="{place}"')
        return f'<figure><div class="square">{image}</div><figcaption>{text(caption)}</figcaption></figure>'

    def _image(self, data: bytes | None, style: str) -> str:
        kind = format_of(data) if data else None
        if data is None or kind is None:
            return '<div class="none">no image</div>'
        if len(data) > min(self._largest, self._left):
            return f'<div class="none">{kind.name}, {len(data):,} bytes: too large to show</div>'
        self._left -= len(data)
        return f'<img alt=""{style} src="data:{kind.content_type};base64,{base64.b64encode(data).decode()}">'


def submitted_image(s: Submission, largest: int = LARGEST_IMAGE) -> bytes | None:
    """The image that was submitted, unless it is far too large to be shown."""
    if isinstance(s.found.source, bytes):
        return s.found.source
    return _read(s.found.source, largest + 1)


def _read(path: Path, limit: int) -> bytes | None:
    """The first bytes of a regular file; None for anything else."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return file.read(limit)
    except (OSError, ValueError):
        return None


def table(heading: str, rows: Iterable[tuple[str, str]]) -> str:
    """A section with a row for each pair of texts."""
    cells = "".join(f"<tr><th>{text(name)}</th><td>{text(value)}</td></tr>" for name, value in rows)
    return f"<section><h2>{text(heading)}</h2><table>{cells}</table></section>"


def text(value: str) -> str:
    """A text as HTML shows it."""
    return escape(value, quote=True)
