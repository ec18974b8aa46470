"""Puts our page into Flower: routes before its catch-all, a tab in its navigation, a collector on its ``/metrics``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flower.urls
import flower.views
import tornado.template
from prometheus_client import REGISTRY
from tornado.web import StaticFileHandler, url

from deploy.flower import jobs, page
from deploy.flower.handlers import Served
from tasks.monitoring.prometheus import OverviewCollector
from tasks.settings import Settings

__all__ = ["install"]

_TEMPLATES = Path(__file__).with_name("templates")
_STATIC = Path(__file__).with_name("static")
_JOB = r"([A-Za-z0-9][A-Za-z0-9_-]{0,127})"
# Flower's navigation is one fixed list; ours comes after its last tab.
_LAST_TAB = ">Broker</a>\n        </li>"
_OUR_TAB = """
        <li class="nav-item">
          <a class="nav-link{% if active_tab == 'activations' %} active{% end %}"
            href="{{ reverse_url('activations') }}">Activations</a>
        </li>"""
# The page of a task has an id as its first element; ours of the same job is linked beside it.
_TASK_TITLE = '<p class="page-eyebrow">Task details</p>'
_OUR_JOB = """
    <a href="../activations/job/{{ task.uuid }}">Pictures, stages and document</a>"""


def install(settings: Settings) -> None:
    """Must be called before Flower's application is created."""
    served = Served.of(settings)
    given = {"served": served}
    flower.urls.handlers[-1:-1] = [
        url(r"/activations", page.Page, name="activations"),
        url(r"/activations/static/(.+)", StaticFileHandler, {"path": str(_STATIC)}),
        url(r"/activations/operations", page.OperationsPage),
        url(r"/activations/health.json", page.Health, given),
        url(r"/activations/overview.json", page.Overviews, given),
        url(r"/activations/history.json", page.History, given),
        url(rf"/activations/picture/(original|protected|difference)/{_JOB}", page.Pictures, given),
        url(rf"/activations/pair/(query|match)/{_JOB}", page.MatchPictures, given),
        url(r"/activations/jobs", jobs.JobsPage, given),
        url(r"/activations/jobs.json", jobs.Jobs, given),
        url(rf"/activations/job/{_JOB}", jobs.JobPage, given),
        url(rf"/activations/result/{_JOB}", jobs.Document, given),
        url(rf"/activations/retry/{_JOB}", jobs.Retry, given),
        url(rf"/activations/cancel/{_JOB}", jobs.Cancel, given),
        url(rf"/activations/feedback/(confirm|reject)/{_JOB}", jobs.GiveFeedback, given),
        url(r"/activations/dead/(resend|drop)/(\d+-\d+)", jobs.DeadLetterChange, given),
    ]
    flower.views.BaseHandler.create_template_loader = lambda _, path: _Loader(path)
    _forbid_frames(flower.views.BaseHandler)
    REGISTRY.register(OverviewCollector(served.snapshot.scraped, lambda: served.health.s3.problem))
    served.start()


def _forbid_frames(handler: Any) -> None:
    """Forbid showing Flower's pages inside another site's page, which could lure a click onto the retry button."""
    own_headers = handler.set_default_headers

    def set_default_headers(self: Any) -> None:
        own_headers(self)
        self.set_header("X-Frame-Options", "DENY")
        self.set_header("Content-Security-Policy", "frame-ancestors 'none'")

    handler.set_default_headers = set_default_headers


class _Loader(tornado.template.Loader):
    """Flower's templates, with our page among them and our tab in the navigation."""

    def resolve_path(self, name: str, parent_path: str | None = None) -> str:
        ours = _TEMPLATES / name
        return name if ours.is_file() else super().resolve_path(name, parent_path)

    def _create_template(self, name: str) -> tornado.template.Template:
        ours = _TEMPLATES / name
        path = ours if ours.is_file() else Path(self.root, name)
        text = path.read_text()
        if name == "navbar.html":
            text = text.replace(_LAST_TAB, _LAST_TAB + _OUR_TAB)
        if name == "task.html":
            text = text.replace(_TASK_TITLE, _TASK_TITLE + _OUR_JOB)
        return tornado.template.Template(text, name=name, loader=self)
