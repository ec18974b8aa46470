"""The page's handlers; all of them behind Flower's own login."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import tornado.web
from flower.views import BaseHandler

from deploy.flower.pictures import PictureBook, placeholder
from deploy.flower.snapshot import LatestResults, Snapshot
from tasks.app import Sender, create_app
from tasks.documents import read_document
from tasks.errors import AiiError, NotFound
from tasks.ledger.operations import Operations
from tasks.settings import Settings
from tasks.storage import ObjectStore

__all__ = ["Document", "Overviews", "Page", "Pictures", "Retry", "Served"]


@dataclass(frozen=True)
class Served:
    """What the handlers share: made once, as connections and pictures outlive a request.

    `picture_threads` are separate, so that pictures waiting for S3 hold up neither documents nor retries.
    """

    snapshot: Snapshot
    results: LatestResults
    store: ObjectStore
    book: PictureBook
    operations: Operations
    sender: Sender
    picture_threads: ThreadPoolExecutor

    @classmethod
    def of(cls, settings: Settings) -> Served:
        """Connects to nothing yet; see :meth:`start`."""
        store, snapshot, operations = ObjectStore.connect(settings), Snapshot(settings), Operations.connect(settings)
        return cls(
            snapshot=snapshot,
            results=LatestResults(store, lambda: operations.published(snapshot.current()[0].latest)),
            store=store,
            book=PictureBook(store, settings.max_image_bytes),
            operations=operations,
            sender=Sender(create_app(settings), settings),
            picture_threads=ThreadPoolExecutor(2, "pictures"),
        )

    def start(self) -> None:
        self.snapshot.start()
        self.results.start()


class Page(BaseHandler):  # type: ignore[misc]  # flower has no types
    """The page itself: a frame, which its script fills."""

    @tornado.web.authenticated
    def get(self) -> None:
        self.render("activations.html", read_only=self.application.options.read_only)


class _Handler(BaseHandler):  # type: ignore[misc]  # as above
    """Turns our errors into answers that say what to do."""

    def initialize(self, served: Served) -> None:
        self._served = served

    def write_error(self, status_code: int, **kwargs: object) -> None:
        info = kwargs.get("exc_info")
        error = info[1] if isinstance(info, tuple) else None
        if status_code == 401:  # asks the browser for the password
            super().write_error(status_code, **kwargs)
        elif isinstance(error, AiiError):
            self.set_status(404 if isinstance(error, NotFound) else 503 if error.retryable else 409)
            self.finish({"code": error.code, "message": error.message})
        else:
            said = error.log_message if isinstance(error, tornado.web.HTTPError) else None
            self.finish({"code": "internal", "message": said or f"Status {status_code}: Flower's log has the rest."})

    def log_exception(self, *info: object) -> None:
        if not isinstance(info[1], AiiError):
            super().log_exception(*info)


class Overviews(_Handler):
    """What the page shows, as JSON."""

    @tornado.web.authenticated
    def get(self) -> None:
        view, _ = self._served.snapshot.current()
        results = self._served.results
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Type", "application/json")
        more = {"results": results.shown(), "s3_problem": results.problem}
        self.finish(json.dumps(view.model_dump(mode="json") | more))


class Document(_Handler):
    """A job's result document."""

    @tornado.web.authenticated
    async def get(self, job_id: str) -> None:
        data = await asyncio.to_thread(read_document, self._served.store, job_id)
        self.set_header("Content-Type", "application/json")
        self.finish(data)


class Retry(_Handler):
    """Opens a failed job again; Flower refuses a request that does not come from its own page."""

    @tornado.web.authenticated
    async def post(self, job_id: str) -> None:
        if self.application.options.read_only:
            raise tornado.web.HTTPError(403, "This Flower is read-only (its option read_only is set).")
        await asyncio.to_thread(self._retry, job_id)
        self.finish({"job_id": job_id, "state": "queued"})

    def _retry(self, job_id: str) -> None:
        self._served.sender.send_again(self._served.operations.retry(job_id))


class Pictures(_Handler):
    """Pictures of an activation: original, protected, ten times their difference; or a placeholder with the reason."""

    @tornado.web.authenticated
    async def get(self, which: str, job_id: str) -> None:
        loop, served = asyncio.get_running_loop(), self._served
        commit = self.get_query_argument("commit", "")
        ended = (job_id, int(commit) if commit.isdecimal() else 0)
        try:
            data = await loop.run_in_executor(served.picture_threads, served.book.picture, ended, which)
            self.set_header("Cache-Control", "private, max-age=3600")
        except AiiError as error:
            data = placeholder(error)
            self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Type", "image/jpeg")
        self.finish(data)
