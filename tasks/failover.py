"""Waiting for sentinels to make another server the primary."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import redis
import tenacity
from redis.exceptions import AuthorizationError

__all__ = ["FAILOVER_WAIT_S", "NO_FAILOVER", "Failover"]

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

# Sentinels' `down-after-milliseconds`, and some seconds more. A caller that waits for longer repeats the whole call.
FAILOVER_WAIT_S: Final = 20.0
_SAME_OUTAGE_S: Final = 45.0


class Failover:
    """Repeats a call while there is no primary. Thread-safe.

    A call that was carried out by a primary which died before it could answer is carried out again: scripts of the
    ledger are safe to repeat, and a figure of the metrics may count an image twice.

    Args:
        address: for the log.
        wait_s: how long, and for two more attempts after the first: one alone may take as long as a silent socket.
    """

    def __init__(self, address: str, wait_s: float = FAILOVER_WAIT_S) -> None:
        self._address = address
        self._noted = float("-inf")
        self._stop = tenacity.stop_after_delay(wait_s) & tenacity.stop_after_attempt(3)

    def call(self, action: Callable[[], _T]) -> _T:
        """What `action` returns, or its last error."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_may_pass),
            wait=tenacity.wait_exponential(multiplier=0.1, max=1.0),
            stop=self._stop,
            before_sleep=self._note,
            reraise=True,
        )
        return retrying(action)

    def _note(self, _: Any) -> None:
        now = time.monotonic()
        if now - self._noted > _SAME_OUTAGE_S:
            logger.warning("Redis at %s does not answer: waiting for a failover.", self._address)
        self._noted = now


class _NoFailover(Failover):
    """Of a server alone: nothing takes its place."""

    def __init__(self) -> None:
        super().__init__("")

    def call(self, action: Callable[[], _T]) -> _T:
        return action()


NO_FAILOVER: Final = _NoFailover()


def _may_pass(error: BaseException) -> bool:
    """Whether another primary would answer. A login that is refused is refused by that one too."""
    if isinstance(error, redis.AuthenticationError | AuthorizationError):
        return False
    return isinstance(error, redis.ConnectionError | redis.TimeoutError | redis.ReadOnlyError)
