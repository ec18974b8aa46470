"""Puts our page into Flower: routes before its catch-all, a tab in its navigation, a collector on its ``/metrics``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flower.urls
import flower.views
import tornado.template
from prometheus_client import REGISTRY
from tornado.web import url

from deploy.flower.page import Document, Overviews, Page, Pictures, Retry, Served
from tasks.monitoring.prometheus import OverviewCollector
from tasks.settings import Settings

__all__ = ["install"]

_TEMPLATES = Path(__file__).with_name("templates")
# Flower's navigation is one fixed list; ours comes after its last tab.
_LAST_TAB = ">Broker</a>\n        </li>"
_OUR_TAB = """
        <li class="nav-item">
          <a class="nav-link{% if active_tab == 'activations' %} active{% end %}"
            href="{{ reverse_url('activations') }}">Activations</a>
        </li>"""


def install(settings: Settings) -> None:
    """Must be called before Flower's application is created."""
    served = Served.of(settings)
    given = {"served": served}
    flower.urls.handlers[-1:-1] = [
        url(r"/activations", Page, name="activations"),
        url(r"/activations/overview.json", Overviews, given),
        url(r"/activations/retry/([0-9a-f]{32})", Retry, given),
        url(r"/activations/result/([0-9a-f]{32})", Document, given),
        url(r"/activations/picture/(original|protected|difference)/([0-9a-f]{32})", Pictures, given),
    ]
    flower.views.BaseHandler.create_template_loader = lambda _, path: _Loader(path)
    _forbid_frames(flower.views.BaseHandler)
    REGISTRY.register(OverviewCollector(served.snapshot.current))
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
        return tornado.template.Template(text, name=name, loader=self)
