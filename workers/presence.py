"""Presence: a short-lived note in Redis by which a warm worker can be seen."""

from __future__ import annotations

import datetime
import logging
import os
import threading
from collections.abc import Sequence
from typing import Final

import redis

from tasks.names import worker_presence
from tasks.results import ExtractorIdentity
from workers.jobs import Identity

logger = logging.getLogger(__name__)

_EVERY_S: Final = 5.0
_LIFE_S: Final = 16


class Presence:
    """Writes the note, renews it until it is stopped, and takes it away."""

    def __init__(
        self, client: redis.Redis, identity: Identity, extractor: ExtractorIdentity, queues: Sequence[str]
    ) -> None:
        self._client = client
        self._key = worker_presence(identity.worker)
        self._note = {
            "worker": identity.worker,
            "pid": str(os.getpid()),
            "device": identity.device,
            "extractor": extractor.name,
            "queues": ",".join(queues),
            "started_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    def start(self) -> None:
        """May be called again: Celery reports a worker ready after every reconnection."""
        if not self._thread.is_alive():
            self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while True:
            self._renew()
            if self._stop.wait(_EVERY_S):
                break
        try:
            self._client.delete(self._key)
        except redis.RedisError as error:
            logger.info("The note of this worker's presence stays until it expires: %s", error)

    def _renew(self) -> None:
        try:
            pipe = self._client.pipeline(transaction=True)
            pipe.hset(self._key, mapping=self._note)
            pipe.expire(self._key, _LIFE_S)
            pipe.execute()
        except redis.RedisError as error:
            logger.warning("This worker's presence could not be renewed: %s", error)
