"""The page's handlers; all of them behind Flower's own login."""

from __future__ import annotations

import asyncio
import json
from functools import cache, lru_cache

import tornado.web
from flower.views import BaseHandler

from deploy.flower.pictures import PictureBook
from tasks.app import Sender, create_app
from tasks.documents import read_document, read_result
from tasks.errors import AiiError, NotFound
from tasks.operations import Operations
from tasks.overview import look
from tasks.results import ActivationResult
from tasks.settings import Settings
from tasks.storage import ObjectStore

__all__ = ["Document", "Overviews", "Page", "Pictures", "Retry"]


class Page(BaseHandler):  # type: ignore[misc]  # flower has no types
    """The page itself: a frame, which its script fills."""

    @tornado.web.authenticated
    def get(self) -> None:
        self.render("activations.html")


class _Handler(BaseHandler):  # type: ignore[misc]  # as above
    """Work happens in threads, so that Flower goes on meanwhile; our errors become answers that say what to do."""

    def initialize(self, settings: Settings) -> None:
        self._settings = settings

    def write_error(self, status_code: int, **kwargs: object) -> None:
        info = kwargs.get("exc_info")
        error = info[1] if isinstance(info, tuple) else None
        if isinstance(error, AiiError):
            self.set_status(404 if isinstance(error, NotFound) else 503 if error.retryable else 409)
            self.finish({"code": error.code, "message": error.message})
        else:
            self.finish({"code": "internal", "message": f"Status {status_code}: Flower's log has the rest."})

    def log_exception(self, *info: object) -> None:
        if not isinstance(info[1], AiiError):
            super().log_exception(*info)


class Overviews(_Handler):
    """What the page shows, as JSON."""

    @tornado.web.authenticated
    async def get(self) -> None:
        view = await asyncio.to_thread(look, self._settings)
        results = await asyncio.to_thread(_latest, self._settings, view.latest)
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(view.model_dump(mode="json") | {"results": results}))


class Document(_Handler):
    """A job's result document."""

    @tornado.web.authenticated
    async def get(self, job_id: str) -> None:
        data = await asyncio.to_thread(read_document, _store(self._settings), job_id)
        self.set_header("Content-Type", "application/json")
        self.finish(data)


class Retry(_Handler):
    """Opens a failed job again; Flower refuses a request that does not come from its own page."""

    @tornado.web.authenticated
    async def post(self, job_id: str) -> None:
        await asyncio.to_thread(_retry, self._settings, job_id)
        self.finish({"job_id": job_id, "state": "queued"})


class Pictures(_Handler):
    """Small pictures of an activation: original, protected, ten times their difference."""

    @tornado.web.authenticated
    async def get(self, which: str, job_id: str) -> None:
        data = await asyncio.to_thread(_book(self._settings).picture, job_id, which)
        self.set_header("Content-Type", "image/jpeg")
        self.set_header("Cache-Control", "private, max-age=3600")
        self.finish(data)


@cache
def _store(settings: Settings) -> ObjectStore:
    return ObjectStore.connect(settings)


@cache
def _book(settings: Settings) -> PictureBook:
    return PictureBook(_store(settings), settings.max_image_bytes)


def _retry(settings: Settings, job_id: str) -> None:
    Sender(create_app(settings), settings).send_again(Operations.connect(settings).retry(job_id))


def _latest(settings: Settings, job_ids: list[str]) -> list[dict[str, object]]:
    """What the page shows of the last activations; they do not change, so each document is read once."""
    found = []
    for job_id in job_ids:
        try:
            found.append(_shown(settings, job_id))
        except AiiError:  # deleted meanwhile: the page does without
            continue
    return found


@lru_cache(256)
def _shown(settings: Settings, job_id: str) -> dict[str, object]:
    result = read_result(_store(settings), job_id)
    if not isinstance(result, ActivationResult):
        raise NotFound(f"Job {job_id} is no activation.")
    return {
        "job_id": job_id, "asset_id": result.asset_id, "collection": result.collection, "status": result.status,
        "psnr_db": result.quality.psnr_db, "ssim": result.quality.ssim, "steps": result.verification.steps,
        "width": result.width, "height": result.height,
    }  # fmt: skip
