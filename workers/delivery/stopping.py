"""The end of a stop: a worker that was told to stop ends in time, whatever is silent, frozen or slow.

SIGTERM lets running jobs finish. What would wait for a service that is away gives up at once. The rest, closing
connections to a silent Redis or S3 among it, has a time limit, and then the process ends as it is: an unfinished job's
lease runs out and another worker does it; every effect of a job can be repeated.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from celery.signals import worker_shutting_down

__all__ = ["StopDeadline"]

logger = logging.getLogger(__name__)

_EXIT_FAILURE: Final = 70
_IDLE_S: Final = 5.0  # a worker without jobs has only connections to close
_TICK_S: Final = 0.1


class StopDeadline:
    """Ends the process when a stop takes too long.

    Args:
        timeout_s: for all of the stop.
        jobs: how many jobs this process holds; with none, a few seconds are enough.
        give_up_waiting: called once when the stop begins.
    """

    def __init__(self, timeout_s: float, jobs: Callable[[], int], give_up_waiting: Callable[[], None]) -> None:
        self._timeout_s = timeout_s
        self._jobs = jobs
        self._give_up_waiting = give_up_waiting
        self._thread = threading.Thread(target=self._run, name="stop-deadline", daemon=True)
        self._begun = threading.Event()

    def watch(self) -> None:
        """From now on, mind the signal that tells the worker to stop."""
        self._thread.start()
        worker_shutting_down.connect(self._begin, weak=False)

    def _begin(self, **_: Any) -> None:
        """Called in a signal handler: no more than an event is set."""
        self._begun.set()

    def _run(self) -> None:
        self._begun.wait()
        self._give_up_waiting()
        begun = busy = time.monotonic()
        while (now := time.monotonic()) - begun < self._timeout_s and now - busy < _IDLE_S:
            time.sleep(_TICK_S)
            if self._jobs():
                busy = time.monotonic()
        logger.warning("The stop took too long, and ends here; %d jobs are left to other workers", self._jobs())
        logging.shutdown()
        os._exit(_EXIT_FAILURE)
