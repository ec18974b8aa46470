"""What is wrong now, for the banner of every page: known within seconds, whatever else is silent."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from deploy.flower.snapshot import Snapshot
from deploy.flower.watch import ServiceWatch
from tasks.errors import AiiError
from tasks.monitoring.problems import Problem, problem

__all__ = ["HealthBook"]

# What is ordinary for a moment: workers take over a new generation one after the other.
_SHOWN_AFTER_S: Final = {"worker_behind": 60.0}


@dataclass
class HealthBook:
    """Problems, and since when each is there. Used by one thread, Flower's loop."""

    snapshot: Snapshot
    redis: ServiceWatch
    s3: ServiceWatch
    clock: Callable[[], float] = time.time
    _since: dict[tuple[str, str], float] = field(default_factory=dict)

    def start(self) -> None:
        self.redis.start()
        self.s3.start()

    def problems(self) -> list[dict[str, Any]]:
        """The worst first; each with `since`, when it was first seen, in seconds since the epoch."""
        now, found = self.clock(), list(self._found())
        self._since = {_key(p): self._since.get(_key(p), now) for p in found}
        shown = [p for p in found if now - self._since[_key(p)] >= _SHOWN_AFTER_S.get(p.code, 0.0)]
        return [p.model_dump() | {"since": self._since[_key(p)]} for p in shown]

    def _found(self) -> list[Problem]:
        found = []
        if self.redis.problem:
            found.append(problem("redis_silent", "Redis does not answer", self.redis.problem))
        if self.s3.problem:
            found.append(problem("s3_silent", "S3 does not answer", self.s3.problem))
        try:
            view, _ = self.snapshot.current()
        except AiiError as error:
            missing = [] if self.redis.problem else [problem("no_figures", "There are no figures", error.message)]
            return missing + found
        # What a silent Redis said last is no news: workers cannot report themselves.
        return found if self.redis.problem else found + view.problems


def _key(found: Problem) -> tuple[str, str]:
    """The same problem with other figures in its words is the same one."""
    return found.code, "".join(c for c in found.title if not c.isdigit())
