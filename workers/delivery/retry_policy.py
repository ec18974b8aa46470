"""What a job does while a service is away: it waits."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

import tenacity

from tasks.errors import Unavailable, WorkerStopping

__all__ = ["RetryPolicy"]

logger = logging.getLogger(__name__)

_T = TypeVar("_T")


class RetryPolicy:
    """Repeats a call for as long as a service is away. Thread-safe.

    A job must not fail because S3 was restarted. Its lease is renewed meanwhile, and the thread that waits here takes
    no new job, which is the back-pressure wanted.

    Args:
        first_s: the first pause; each is twice as long as the one before.
        longest_s: the longest pause.
    """

    def __init__(self, first_s: float = 0.25, longest_s: float = 10.0) -> None:
        self._stop = threading.Event()
        self._retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Unavailable),
            wait=tenacity.wait_exponential(multiplier=first_s, max=longest_s),
            stop=tenacity.stop_when_event_set(self._stop),
            sleep=tenacity.sleep_using_event(self._stop),
            before_sleep=_log,
            retry_error_callback=_give_up,
        )

    def stop(self) -> None:
        """End all waiting: the jobs are left to other workers."""
        self._stop.set()

    def __call__(self, call: Callable[[], _T]) -> _T:
        """The answer of `call`, repeated until it raises no Unavailable; other errors pass.

        Raises:
            WorkerStopping: :meth:`stop` was called before the service was back.
        """
        return self._retrying(call)


def _log(state: tenacity.RetryCallState) -> None:
    logger.warning("%s Trying again in %.3g s.", state.outcome and state.outcome.exception(), state.upcoming_sleep)


def _give_up(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    raise WorkerStopping("This worker is stopping: the job is sent to another one.") from error
