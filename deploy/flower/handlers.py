"""What the handlers of all our pages share; all of them are behind Flower's own login."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import tornado.web
from flower.views import BaseHandler

from deploy.flower.health import HealthBook
from deploy.flower.job_index import JobIndex
from deploy.flower.pictures import PictureBook
from deploy.flower.snapshot import LatestQueries, LatestResults, Snapshot
from deploy.flower.watch import ServiceWatch
from tasks.app import Sender, create_app
from tasks.connection import connect_redis
from tasks.errors import AiiError, NotFound
from tasks.ledger.dead_letters import DeadLetters
from tasks.ledger.ledger import Ledger
from tasks.ledger.operations import Operations
from tasks.settings import Settings
from tasks.storage import ObjectStore

__all__ = ["Handler", "Served"]


@dataclass(frozen=True)
class Served:
    """What the handlers share: made once, as connections and pictures outlive a request.

    `picture_threads` are separate, so that pictures waiting for S3 hold up neither documents nor retries.
    """

    settings: Settings
    snapshot: Snapshot
    health: HealthBook
    results: LatestResults
    queries: LatestQueries
    store: ObjectStore
    book: PictureBook
    operations: Operations
    job_index: JobIndex
    dead_letters: DeadLetters
    ledger: Ledger
    sender: Sender
    picture_threads: ThreadPoolExecutor

    @classmethod
    def of(cls, settings: Settings) -> Served:
        """Connects to nothing yet; see :meth:`start`."""
        store, snapshot, operations = ObjectStore.connect(settings), Snapshot(settings), Operations.connect(settings)
        redis, asked = connect_redis(settings), connect_redis(settings)
        return cls(
            settings=settings,
            snapshot=snapshot,
            health=HealthBook(snapshot, ServiceWatch("Redis", asked.ping), ServiceWatch("S3", store.check)),
            results=LatestResults(store, lambda: operations.published(snapshot.current()[0].latest)),
            queries=LatestQueries(store, lambda: operations.published(snapshot.current()[0].latest_queries)),
            store=store,
            book=PictureBook(store, settings.max_image_bytes),
            operations=operations,
            job_index=JobIndex(redis, operations),
            dead_letters=DeadLetters(redis),
            ledger=Ledger.connect(settings),
            sender=Sender(create_app(settings), settings),
            picture_threads=ThreadPoolExecutor(2, "pictures"),
        )

    def start(self) -> None:
        self.snapshot.start()
        self.results.start()
        self.queries.start()
        self.health.start()
        self.job_index.start()


class Handler(BaseHandler):  # type: ignore[misc]  # flower has no types
    """Turns our errors into answers that say what to do."""

    def initialize(self, served: Served) -> None:
        self.served = served

    @property
    def read_only(self) -> bool:
        return bool(self.application.options.read_only)

    def forbid_changes(self) -> None:
        """Raise 403 where this Flower is for reading only."""
        if self.read_only:
            raise tornado.web.HTTPError(403, "This Flower is read-only (its option read_only is set).")

    def answer(self, document: str) -> None:
        """Finish with JSON that is true now only."""
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Type", "application/json")
        self.finish(document)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
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

    def log_exception(self, *info: Any) -> None:
        if not isinstance(info[1], AiiError):
            super().log_exception(*info)
