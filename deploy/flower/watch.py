"""Whether a service answers, known within seconds: an open and silent connection tells nothing for half a minute.

A thread asks again and again. While an answer is overdue, the thread waits, and who reads this is told so.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from tasks.errors import AiiError
from tasks.periodic import PeriodicThread

__all__ = ["ServiceWatch"]

logger = logging.getLogger(__name__)

_EVERY_S: Final = 0.5
# With the pause above and the page's second, a service that falls silent is shown within three.
_SILENT_S: Final = 1.8


class ServiceWatch:
    """Asks one service; see the module.

    Args:
        name: of the service, for people.
        check: asks it once; raises an error that says what is wrong.
        silent_s: how long after the last answer the service counts as silent.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        name: str,
        check: Callable[[], object],
        *,
        silent_s: float = _SILENT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._check = check
        self._silent_s = silent_s
        self._clock = clock
        self._answered_at = clock()
        self._error: str | None = None
        self._thread = PeriodicThread(f"watch {name}", _EVERY_S, self.ask, at_once=True)

    def start(self) -> None:
        self._answered_at = self._clock()
        self._thread.start()

    @property
    def problem(self) -> str | None:
        """Why the service cannot be used; None when it can."""
        silent_s = self._clock() - self._answered_at
        if silent_s > self._silent_s and self._error is None:
            return f"{self._name} has not answered for {silent_s:.0f} s."
        return self._error

    def ask(self) -> None:
        """Ask once, however long the answer takes."""
        try:
            self._check()
            self._error = None
        except AiiError as error:
            self._error = error.message
        except Exception as error:  # the watch must go on
            logger.exception("%s could not be asked", self._name)
            self._error = f"{type(error).__name__}: Flower's log has the rest."
        self._answered_at = self._clock()
