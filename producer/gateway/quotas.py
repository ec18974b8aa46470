"""How many jobs of a token may be open at a time, so that one client's backlog keeps no other waiting for long.

aii:quota:{token}   sorted set: jobs that may be open still, by the time they were submitted
"""

from __future__ import annotations

import time
from typing import Final

from producer.gateway.tokens import Token
from tasks.connection import RedisClient
from tasks.errors import RateLimited
from tasks.ledger.ledger import Ledger

__all__ = ["Quotas"]

_LOOKED_AT: Final = 1_000
_KEEP_S: Final = 7 * 86_400


class Quotas:
    """Shared by all gateways. Thread-safe; raises RedisUnavailable."""

    def __init__(self, client: RedisClient, ledger: Ledger) -> None:
        self._client = client
        self._ledger = ledger

    def check(self, token: Token) -> None:
        """Raise RateLimited when as many jobs are open as the token may have. Requests at the same time may go a few
        beyond that."""
        if not token.open_jobs or self._client.zcard(_key(token)) < token.open_jobs:
            return
        if self._without_closed(token) >= token.open_jobs:
            raise RateLimited(f"{token.open_jobs:,} jobs of the token {token.name} are open: wait until some end.")

    def count(self, token: Token, job_id: str) -> None:
        """Note a job that was accepted."""
        if token.open_jobs:
            pipe = self._client.pipeline(transaction=False)
            pipe.zadd(_key(token), {job_id: time.time()}).expire(_key(token), _KEEP_S).execute()

    def _without_closed(self, token: Token) -> int:
        """Forget those that have ended, the oldest first; returns how many are left."""
        oldest = self._client.zrange(_key(token), 0, _LOOKED_AT - 1)
        states = self._ledger.states(oldest) if oldest else []
        closed = [job_id for job_id, state in zip(oldest, states, strict=True) if state is None or state.closed]
        if closed:
            self._client.zrem(_key(token), *closed)
        return int(self._client.zcard(_key(token)))


def _key(token: Token) -> str:
    return f"aii:quota:{token.name}"
