"""What a job does while a service is away: for Redis it waits, for anything else only a moment."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

import tenacity

from tasks.errors import RedisUnavailable, Unavailable, WorkerStopping

__all__ = ["JobRetryPolicy"]

logger = logging.getLogger(__name__)

_T = TypeVar("_T")


class JobRetryPolicy:
    """Repeats a call while a service is away. Thread-safe.

    Without Redis there is neither a next job nor a way to put this one off, so its thread waits. While S3 is away, or
    a disk is full, a few attempts bridge a restart; then the error is the caller's, who puts the job off: a service
    that stays away, or refuses one object, must not hold the threads that other jobs need.

    Args:
        first_s: the first pause; each is twice as long as the one before.
        longest_s: the longest pause.
        attempts: how many for what is not Redis.
    """

    def __init__(self, first_s: float = 0.25, longest_s: float = 10.0, attempts: int = 4) -> None:
        self._stop = threading.Event()
        self._attempts = attempts
        self._retrying = tenacity.Retrying(
            retry=self._is_worth_it,
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
        """The answer of `call`; errors that are not Unavailable pass.

        Raises:
            Unavailable: but for Redis, after the last attempt; at once when the service is there and refuses.
            WorkerStopping: :meth:`stop` was called before the service was back.
        """
        return self._retrying(call)

    def _is_worth_it(self, state: tenacity.RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, RedisUnavailable):
            return True
        return isinstance(error, Unavailable) and error.most_attempts is None and state.attempt_number < self._attempts


def _log(state: tenacity.RetryCallState) -> None:
    logger.warning("%s Trying again in %.3g s.", state.outcome and state.outcome.exception(), state.upcoming_sleep)


def _give_up(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    raise WorkerStopping("This worker is stopping: the job is sent to another one.") from error
