"""The process that delivers: ``aii hooks run``. Several may run at the same time."""

from __future__ import annotations

import asyncio
import datetime
import logging
import os
import signal
import socket
from collections import Counter
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

_AT_ONCE: Final = 16  # of one hook: a receiver that is slow keeps no other waiting
_TIMEOUT_S: Final = 15.0  # as Standard Webhooks advises; shorter than the claim of a delivery
_MOST_EVENTS: Final = 200
_IDLE_MS: Final = 500
_SOON_MS: Final = 10
_SHORT_PAUSE_S: Final = 0.02
_PAUSE_S: Final = 1.0


def run(settings: Settings) -> None:
    """Deliver until SIGTERM or SIGINT; attempts that have begun are finished first."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # it would log every address
    asyncio.run(_run(settings))


async def _run(settings: Settings) -> None:
    end = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end.set)
    limits = httpx.Limits(max_connections=None)
    with connect_redis(settings) as redis:
        async with httpx.AsyncClient(timeout=_TIMEOUT_S, limits=limits) as client:
            await Deliverer(Hooks(redis), Deliveries(redis), client).run(end)


class Deliverer:
    """Takes events from the outbox and tries what is due.

    Args:
        timeout_s: of one try, however slowly the receiver answers.
    """

    def __init__(
        self, hooks: Hooks, deliveries: Deliveries, client: httpx.AsyncClient, timeout_s: float = _TIMEOUT_S
    ) -> None:
        self._hooks = hooks
        self._deliveries = deliveries
        self._client = client
        self._timeout_s = timeout_s
        self._tries: set[asyncio.Task[None]] = set()
        self._running = Counter[str]()  # tries by hook
        self._name = f"{socket.gethostname()}-{os.getpid()}"

    async def run(self, end: asyncio.Event) -> None:
        """Until `end` is set; what has begun is finished."""
        while not end.is_set():
            pause_s = await self._step_safely()
            try:
                await asyncio.wait_for(end.wait(), pause_s)
            except TimeoutError:
                continue
        await asyncio.gather(*self._tries)

    async def _step_safely(self) -> float:
        """Returns how long to pause."""
        try:
            return 0 if await self._step() else _SHORT_PAUSE_S
        except RedisUnavailable as error:
            logger.warning("%s Nothing is delivered until then.", error.message)
        except Exception:
            logger.exception("Nothing can be delivered at the moment")
        return _PAUSE_S

    async def _step(self) -> bool:
        """Take some events, and begin to try what is due; returns whether there was anything to do. Without that it
        waits for an event for a moment."""
        hooks = await asyncio.to_thread(self._hooks.all)
        due = await asyncio.to_thread(self._due, hooks)
        by_id = {hook.hook_id: hook for hook in hooks}
        for delivery in due:
            self._begin(by_id[delivery.hook_id], delivery)
        wait_ms = _SOON_MS if self._tries else _IDLE_MS
        taken = await asyncio.to_thread(self._deliveries.take, self._name, hooks, _MOST_EVENTS, wait_ms)
        return bool(taken) or bool(due)

    def _due(self, hooks: list[Hook]) -> list[Delivery]:
        self._deliveries.open()  # again, in case Redis was emptied
        return self._deliveries.due({hook.hook_id: _AT_ONCE - self._running[hook.hook_id] for hook in hooks})

    def _begin(self, hook: Hook, delivery: Delivery) -> None:
        self._running[hook.hook_id] += 1
        begun = asyncio.create_task(self._try(hook, delivery))
        self._tries.add(begun)
        begun.add_done_callback(self._tries.discard)

    async def _try(self, hook: Hook, delivery: Delivery) -> None:
        try:
            delivered, answer = await self._post(hook, delivery)
            became = await asyncio.to_thread(self._deliveries.note, delivery, delivered, answer)
            if not delivered:
                logger.warning("Delivery %s: %s (%s)", delivery.delivery_id, answer, became)
        except RedisUnavailable as error:  # it is tried again when the claim is over, under the same id
            logger.warning("What came of delivery %s is not noted: %s", delivery.delivery_id, error.message)
        except Exception:
            logger.exception("Delivery %s cannot be tried", delivery.delivery_id)
        finally:
            self._running[hook.hook_id] -= 1

    async def _post(self, hook: Hook, delivery: Delivery) -> tuple[bool, str]:
        """Whether the receiver took it, and what it said."""
        try:
            async with (
                asyncio.timeout(self._timeout_s),  # the client's own begin anew with each byte
                self._client.stream(
                    "POST", hook.url, content=delivery.event, headers=_headers(hook, delivery)
                ) as answer,  # its body is not read: it may be endless
            ):
                return answer.is_success, str(answer.status_code)
        except (
            httpx.HTTPError,
            httpx.InvalidURL,
            UnicodeError,
            TimeoutError,
        ) as error:  # UnicodeError: no name of a host
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
