"""What the page and ``/metrics`` show, refreshed in threads of their own.

Flower has one event loop. Every request is answered from memory, so that a Redis or an S3 that is slow, away, or silent
on a half-open connection holds up neither the loop nor any page, and ten open pages cost no more than one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Final

from pydantic import ValidationError

from tasks.documents import read_result
from tasks.errors import AiiError, NotFound, NotReady, RedisUnavailable, Unavailable
from tasks.monitoring.metrics import Counters
from tasks.monitoring.observer import Observer
from tasks.monitoring.overview import Overview, Point
from tasks.monitoring.presence import Mark
from tasks.monitoring.series import Range
from tasks.periodic import PeriodicThread
from tasks.results import ActivationResult, QueryResult, Result
from tasks.settings import Settings
from tasks.storage import ObjectStore

__all__ = ["LatestQueries", "LatestResults", "Snapshot"]

logger = logging.getLogger(__name__)

_EVERY_S: Final = 2.0
_STALE_S: Final = 10.0
_HISTORY_S: Final = 1_800
# Totals are only read for Prometheus: as often as the overview while it asks for them, and rarely otherwise.
_TOTALS_EVERY_S: Final = 10.0
_SCRAPED_S: Final = 120.0


class Snapshot:
    """The last overview, and the totals since the beginning."""

    def __init__(self, settings: Settings) -> None:
        self._observer = Observer(settings, _HISTORY_S)
        self._seen: tuple[Overview, Counters] | None = None
        self._seen_at = 0.0
        self._problem: AiiError = NotReady("Flower has just started.")
        self._total, self._total_at, self._scraped_at = Counters(), float("-inf"), float("-inf")
        self._thread = PeriodicThread("snapshot", _EVERY_S, self.refresh, at_once=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._thread.stop(timeout_s=1.0)  # a call that hangs must not keep Flower from ending
        self._observer.close()

    def current(self) -> tuple[Overview, Counters]:
        """Raises an AiiError with the reason when there is none, or none that is fresh."""
        seen = self._seen
        if seen is None:
            raise self._problem
        age_s = time.monotonic() - self._seen_at
        if age_s > _STALE_S:
            raise RedisUnavailable(f"Redis has not answered for {age_s:.0f} s.")
        return seen

    def scraped(self) -> tuple[Overview, Counters]:
        """The same for Prometheus; totals may be ten seconds old where it did not ask for two minutes."""
        self._scraped_at = time.monotonic()
        return self.current()

    def history(self, kept: Range) -> tuple[list[Point], list[Mark]]:
        """The points of a range and what happened in it; raises RedisUnavailable."""
        return self._observer.history(kept.name), self._observer.marks(kept.seconds)

    def refresh(self) -> None:
        """Ask Redis; :meth:`current` raises what went wrong."""
        try:
            view = self._observer.read()
            self._read_total()
            self._seen, self._seen_at = (view, self._total), time.monotonic()
            self._observer.note_waiting(view)
        except AiiError as error:
            self._seen, self._problem = None, error
        except Exception as error:  # the page shows the problem; the thread must go on
            logger.exception("The overview could not be made")
            self._seen, self._problem = None, AiiError(f"{type(error).__name__}: Flower's log has the rest.")

    def _read_total(self) -> None:
        now = time.monotonic()
        if now - self._scraped_at < _SCRAPED_S or now - self._total_at >= _TOTALS_EVERY_S:
            self._total, self._total_at = self._observer.total(), now


class LatestResults:
    """What the page shows of the last activations. Documents do not change: each is read once.

    Args:
        latest: job ids, newest first, with the number of each one's latest document; 0 where that is unknown.
    """

    def __init__(self, store: ObjectStore, latest: Callable[[], Mapping[str, int]]) -> None:
        self._store = store
        self._latest = latest
        self._read: dict[tuple[str, int], dict[str, object] | None] = {}
        self._problem: str | None = None
        self._thread = PeriodicThread("latest-results", _EVERY_S, self.refresh, at_once=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def problem(self) -> str | None:
        """Why documents cannot be read; None when they can."""
        return self._problem

    def shown(self) -> list[dict[str, object]]:
        """The results read so far, newest first."""
        return [document for document in self._read.values() if document]

    def refresh(self) -> None:
        """Read new documents. Ends with the first failure: the next document would wait as long for the same error."""
        try:
            latest = self._latest()
        except AiiError:  # Redis is away, which the page shows by itself
            return
        try:
            read: dict[tuple[str, int], dict[str, object] | None] = {}
            for ended in latest.items():
                read[ended] = self._read[ended] if ended in self._read else self._document(*ended)
            self._read = read
            self._problem = None
        except Unavailable as error:
            self._problem = error.message
        except Exception as error:  # the rest of the page goes on
            logger.exception("The latest results could not be read")
            self._problem = f"{type(error).__name__}: Flower's log has the rest."

    def _document(self, job_id: str, commit: int) -> dict[str, object] | None:
        """None for one that was deleted, or is no document that this version can read."""
        try:
            result = read_result(self._store, job_id, commit or None)
        except (NotFound, ValidationError):
            return None
        return self._shown(result, commit)

    def _shown(self, result: Result, commit: int) -> dict[str, object] | None:
        """None for a result of another kind."""
        return _activation(result, commit) if isinstance(result, ActivationResult) else None


class LatestQueries(LatestResults):
    """The same of the last queries."""

    def _shown(self, result: Result, commit: int) -> dict[str, object] | None:
        return _query(result, commit) if isinstance(result, QueryResult) else None


def _query(result: QueryResult, commit: int) -> dict[str, object]:
    first = result.matches[0] if result.matches else None
    return {
        "job_id": result.job_id, "commit": commit, "collection": result.collection, "verdict": result.verdict,
        "asset_id": first.asset_id if first else None, "name": first.name if first else "",
        "score": first.score if first else None, "distance": first.distance if first else None,
        "reason": result.assessment.reason if result.assessment else "", "at": result.provenance.finished_at,
    }  # fmt: skip


def _activation(result: ActivationResult, commit: int) -> dict[str, object]:
    return {
        "job_id": result.job_id, "commit": commit, "asset_id": result.asset_id, "name": result.name,
        "collection": result.collection, "status": result.status,
        "psnr_db": result.quality.psnr_db, "ssim": result.quality.ssim, "steps": result.verification.steps,
        "steps_asked": result.options.steps, "robust": result.options.robust, "width": result.width,
        "height": result.height,
    }  # fmt: skip
