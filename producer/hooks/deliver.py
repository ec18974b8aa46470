"""The process that delivers: ``aii hooks run``. Several may run at the same time."""

from __future__ import annotations

import datetime
import logging
import os
import signal
import socket
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

import httpx2 as httpx
from standardwebhooks import Webhook

from producer.hooks.deliveries import Deliveries, Delivery
from producer.hooks.registry import Hook, Hooks
from tasks.connection import connect_redis
from tasks.errors import RedisUnavailable
from tasks.settings import Settings

__all__ = ["Deliverer", "run"]

logger = logging.getLogger(__name__)

_AT_ONCE: Final = 16
_TIMEOUT_S: Final = 15.0  # as Standard Webhooks advises; shorter than the claim of a delivery
_MOST_EVENTS: Final = 200
_IDLE_MS: Final = 500
_SOON_MS: Final = 10
_SHORT_PAUSE_S: Final = 0.02
_PAUSE_S: Final = 1.0


def run(settings: Settings) -> None:
    """Deliver until SIGTERM or SIGINT; attempts that have begun are finished first."""
    end = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end.set())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # it would log every address
    with httpx.Client(timeout=_TIMEOUT_S) as client, connect_redis(settings) as redis:
        Deliverer(Hooks(redis), Deliveries(redis), client).run(end)


class Deliverer:
    """Takes events from the outbox and tries what is due, in threads."""

    def __init__(self, hooks: Hooks, deliveries: Deliveries, client: httpx.Client) -> None:
        self._hooks = hooks
        self._deliveries = deliveries
        self._client = client
        self._running: set[Future[None]] = set()
        self._name = f"{socket.gethostname()}-{os.getpid()}"

    def run(self, end: threading.Event) -> None:
        """Until `end` is set; what has begun is finished."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            while not end.is_set():
                try:
                    busy = self._step(pool)
                except RedisUnavailable as error:
                    logger.warning("%s Nothing is delivered until then.", error.message)
                    end.wait(_PAUSE_S)
                else:
                    end.wait(0 if busy else _SHORT_PAUSE_S)

    def _step(self, pool: ThreadPoolExecutor) -> bool:
        """Take some events, and begin to try what is due; returns whether there was anything to do. Without that it
        waits for an event for a moment."""
        self._running = {one for one in self._running if not one.done()}
        hooks = {hook.hook_id: hook for hook in self._hooks.all()}
        self._deliveries.open()  # again, in case Redis was emptied
        due = self._deliveries.due(_AT_ONCE - len(self._running)) if len(self._running) < _AT_ONCE else []
        self._running |= {pool.submit(self._try, delivery, hooks) for delivery in due}
        wait_ms = _SOON_MS if self._running else _IDLE_MS
        return bool(self._deliveries.take(self._name, list(hooks.values()), _MOST_EVENTS, wait_ms)) or bool(due)

    def _try(self, delivery: Delivery, hooks: Mapping[str, Hook]) -> None:
        try:
            self._deliver(delivery, hooks)
        except RedisUnavailable as error:  # it is tried again when the claim is over, under the same id
            logger.warning("What came of delivery %s is not noted: %s", delivery.delivery_id, error.message)
        except Exception:
            logger.exception("Delivery %s cannot be tried", delivery.delivery_id)

    def _deliver(self, delivery: Delivery, hooks: Mapping[str, Hook]) -> None:
        hook = hooks.get(delivery.hook_id)
        if hook is None:
            self._deliveries.drop(delivery)
            return
        delivered, answer = self._post(hook, delivery)
        became = self._deliveries.note(delivery, delivered, answer)
        if not delivered:
            logger.warning("Delivery %s: %s (%s)", delivery.delivery_id, answer, became)

    def _post(self, hook: Hook, delivery: Delivery) -> tuple[bool, str]:
        """Whether the receiver took it, and what it said."""
        try:
            with self._client.stream(
                "POST", hook.url, content=delivery.event, headers=_headers(hook, delivery)
            ) as answer:  # its body is not read: it may be endless
                return answer.is_success, str(answer.status_code)
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:  # the last: the host is no name
            return False, type(error).__name__


def _headers(hook: Hook, delivery: Delivery) -> dict[str, str]:
    """The id is the event's, so that a receiver knows what it had before; the signature covers id, time and body."""
    now = datetime.datetime.now(datetime.UTC)
    signature = Webhook(hook.secret.get_secret_value()).sign(delivery.event_id, now, delivery.event)
    return {
        "Content-Type": "application/cloudevents+json",
        "User-Agent": "active-image-indexing",
        "webhook-id": delivery.event_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signature,
    }
