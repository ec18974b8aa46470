"""The page *Activations*: its frame, the figures that its script fills it with, and the operations it links to."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path

import tornado.web
from flower.views import BaseHandler
from markdown_it import MarkdownIt

import deploy
from deploy.flower.handlers import Handler
from deploy.flower.pictures import placeholder
from tasks.errors import AiiError
from tasks.monitoring.series import RANGES

__all__ = ["Health", "History", "MatchPictures", "OperationsPage", "Overviews", "Page", "Pictures"]


class Page(BaseHandler):  # type: ignore[misc]  # flower has no types
    """The page itself: a frame, which its script fills."""

    @tornado.web.authenticated
    def get(self) -> None:
        self.render("activations.html", read_only=self.application.options.read_only)


class Health(Handler):
    """What is wrong, for the banner: asked every second, and answered from memory."""

    @tornado.web.authenticated
    def get(self) -> None:
        self.answer(json.dumps({"at": time.time(), "problems": self.served.health.problems()}))


class Overviews(Handler):
    """What the page shows, as JSON."""

    @tornado.web.authenticated
    def get(self) -> None:
        served = self.served
        view, _ = served.snapshot.current()
        more = {
            "results": served.results.shown(),
            "queries": served.queries.shown(),
            "s3_problem": served.health.s3.problem or served.results.problem,
            "problems": served.health.problems(),
        }
        self.answer(json.dumps(view.model_dump(mode="json") | more))


class History(Handler):
    """The figures of hours or of a week, with what happened in that time."""

    @tornado.web.authenticated
    async def get(self) -> None:
        name = self.get_query_argument("range", "6h")
        if name not in RANGES:
            raise tornado.web.HTTPError(400, f"The range is one of {', '.join(RANGES)}.")
        kept, snapshot = RANGES[name], self.served.snapshot
        points, marks = await asyncio.to_thread(snapshot.history, kept)
        told = {"at": time.time(), "seconds": kept.seconds, "step_s": kept.step_s}
        lists = {"points": [p.model_dump() for p in points], "marks": [m.model_dump() for m in marks]}
        self.answer(json.dumps(told | lists))


class Pictures(Handler):
    """Pictures of an activation: original, protected, ten times their difference; or a placeholder with the reason."""

    @tornado.web.authenticated
    async def get(self, which: str, job_id: str) -> None:
        commit = self.get_query_argument("commit", "")
        ended = (job_id, int(commit) if commit.isdecimal() else 0)
        await _finish_picture(self, lambda: self.served.book.picture(ended, which))


class MatchPictures(Handler):
    """The image of a query, or that of its first match."""

    @tornado.web.authenticated
    async def get(self, which: str, job_id: str) -> None:
        await _finish_picture(self, lambda: self.served.book.of_query(job_id, which))


async def _finish_picture(handler: Handler, made: Callable[[], bytes]) -> None:
    loop = asyncio.get_running_loop()
    try:
        data = await loop.run_in_executor(handler.served.picture_threads, made)
        handler.set_header("Cache-Control", "private, max-age=3600")
    except AiiError as error:
        data = placeholder(error)
        handler.set_header("Cache-Control", "no-store")
    handler.set_header("Content-Type", "image/jpeg")
    handler.finish(data)


class OperationsPage(BaseHandler):  # type: ignore[misc]  # as above
    """deploy/README.md, whose headings are what problems link to."""

    @tornado.web.authenticated
    def get(self) -> None:
        self.render("operations.html", text=operations_html())


@cache
def operations_html() -> str:
    """The README as HTML: headings with anchors as GitHub names them, and commands that the keyboard can scroll."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(Path(deploy.__file__).with_name("README.md").read_text("utf-8"))
    for token, inline in pairwise(tokens):
        if token.type == "heading_open":
            token.attrSet("id", _anchor(inline.content))
        elif token.type in ("code_block", "fence"):
            token.attrSet("tabindex", "0")
        for part in inline.children or ():
            if part.type == "link_open" and not str(part.attrGet("href")).startswith(("#", "https://")):
                part.attrs.pop("href")  # a file that is not served here
    return str(markdown.renderer.render(tokens, markdown.options, {}))


def _anchor(heading: str) -> str:
    kept = "".join(c for c in heading.lower() if c.isalnum() or c in " -_")
    return kept.replace(" ", "-")
