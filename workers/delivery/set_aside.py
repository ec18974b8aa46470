"""What a worker cannot use is set aside: one message or record at a time, counted, and kept for an operator."""

from __future__ import annotations

import json
import logging
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from tasks.errors import RedisUnavailable
from tasks.ledger.dead_letters import DeadLetters
from tasks.periodic import PeriodicThread
from workers.delivery.envelope import REFUSED_TASK, Envelope, Unusable, read_envelope

__all__ = ["SetAside"]

logger = logging.getLogger(__name__)

_EVERY_S: Final = 1.0
_MOST_PENDING: Final = 1_000


class SetAside:
    """Notes dead letters, now or, while Redis is away, as soon as it is back. Thread-safe; raises nothing but where it
    says so."""

    def __init__(self, letters: DeadLetters) -> None:
        self._letters = letters
        self._pending: deque[tuple[str, str, bytes, str]] = deque(maxlen=_MOST_PENDING)
        self._lock = threading.Lock()
        self.thread = PeriodicThread("dead-letters", _EVERY_S, self.flush)

    def screen(self, element: bytes, queue: str) -> dict[str, Any] | None:
        """The message for Celery that an element of a queue's list holds. From one that cannot be used only its job's
        id is passed on, if it has one, so that the job ends with a document that says why; else None."""
        try:
            return read_envelope(element, queue).for_celery(queue)
        except Unusable as error:
            reason, job_id = error.reason, error.job_id
        except Exception as error:
            logger.exception("A message could not be read")
            reason, job_id = f"The message could not be read ({type(error).__name__}).", None
        self.add(queue, reason, element)
        return Envelope(job_id, REFUSED_TASK, reason).for_celery(queue) if job_id else None

    def odd_keys(self, keys: Sequence[str], wanted: str) -> None:
        """Rename those keys of the broker that are not of the type `wanted`: no queue can be read because of them.

        Raises:
            RedisUnavailable
        """
        for key in keys:
            if aside := self._letters.move_aside(key, wanted):
                self.add("redis", f"The key {key!r} was no {wanted}, and is called {aside!r} now.", b"")

    def message(self, message: Any, error: Exception) -> None:
        """Set aside and acknowledge a message, screened before, that Celery stumbled over with `error`."""
        try:
            logger.error("A message could not be handed over", exc_info=error)
            queue = str((message.delivery_info or {}).get("routing_key", ""))
            reason = f"Celery cannot handle the message ({type(error).__name__})."
            self.add(queue, reason, json.dumps(message._raw).encode())
        finally:
            if not message.acknowledged:
                message.ack_log_error(logger, (Exception,))

    def add(self, origin: str, reason: str, content: bytes, once: str = "") -> None:
        """Keep something as a dead letter, see :meth:`DeadLetters.add`."""
        logger.warning("Set aside from %s: %s See `aii jobs dead`.", origin, reason)
        with self._lock:
            self._pending.append((origin, reason, content, once))
        try:
            self.flush()
        except RedisUnavailable:
            logger.warning("The dead letter is noted when Redis is back")
        except Exception:
            logger.exception("The dead letter could not be noted yet")

    def flush(self) -> None:
        """Note what is pending; raises RedisUnavailable."""
        with self._lock:
            while self._pending:
                self._letters.add(*self._pending[0])
                self._pending.popleft()
