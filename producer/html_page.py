"""HTML pages that need nothing else and run nothing: images are embedded, and every text is escaped."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path
from typing import Final

from producer.batch import Submission
from tasks.formats import format_of

__all__ = ["Images", "document", "image_of_query", "text"]

# Images are embedded as they are: a page stays one that a browser opens.
_LARGEST_IMAGE: Final = 2 * 2**20
_LARGEST_PAGE: Final = 48 * 2**20
_POLICY: Final = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE: Final = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2rem; color: #222; background: #fff }
section { border-top: 1px solid #ccc; padding: 1rem 0; display: flex; gap: 1rem; flex-wrap: wrap }
h1 { font-size: 1.3rem; overflow-wrap: anywhere }
h2 { flex-basis: 100%; font-size: 1rem; margin: 0; overflow-wrap: anywhere }
figure { margin: 0; width: 14rem } img { max-width: 100%; max-height: 14rem; display: block }
figcaption { font-size: .85rem; overflow-wrap: anywhere } .none { background: #eee; padding: 4rem 1rem; color: #666 }
.pair figure { width: min(26rem, 47%) }
.pair img { width: 100%; max-height: none; aspect-ratio: 1; object-fit: contain; background: #f4f4f4 }
.square { position: relative; overflow: hidden; aspect-ratio: 1; background: #f4f4f4 }
.square img { position: absolute; aspect-ratio: auto; max-width: none; background: none }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .2rem 1rem .2rem 0; overflow-wrap: anywhere }
th { font-weight: 600; width: 12rem }
"""


def document(title: str, body: str) -> str:
    """A page with a title (text) and a body (HTML)."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{text(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><style>{_STYLE}</style></head>'
        f"<body><h1>{text(title)}</h1>{body}</body></html>\n"
    )


class Images:
    """The images of one page, which grows no larger than a browser opens."""

    def __init__(self) -> None:
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
        if len(data) > min(_LARGEST_IMAGE, self._left):
            return f'<div class="none">{kind.name}, {len(data):,} bytes: too large to show</div>'
        self._left -= len(data)
        return f'<img alt=""{style} src="data:{kind.content_type};base64,{base64.b64encode(data).decode()}">'


def image_of_query(s: Submission) -> bytes | None:
    """The query itself, unless it is far too large to be shown."""
    if isinstance(s.found.source, bytes):
        return s.found.source
    return _read(s.found.source, _LARGEST_IMAGE + 1)


def _read(path: Path, limit: int) -> bytes | None:
    """The first bytes of a regular file; None for anything else."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return file.read(limit)
    except (OSError, ValueError):
        return None


def text(value: str) -> str:
    """A text as HTML shows it."""
    return escape(value, quote=True)
