"""One way to reach Redis, with time-outs that notice a half-open socket."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from tasks.errors import RedisUnavailable
from tasks.settings import Settings

SOCKET_OPTIONS = {
    "socket_timeout": 10.0,
    "socket_connect_timeout": 3.0,
    "socket_keepalive": True,
    "health_check_interval": 5,
}


def connect_redis(settings: Settings) -> redis.Redis:
    """A thread-safe client that answers in `str`. Does not connect yet."""
    return redis.Redis.from_url(
        settings.redis_url.get_secret_value(),
        decode_responses=True,
        retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), 1),
        **SOCKET_OPTIONS,
    )


def redis_address(settings: Settings) -> str:
    """``host:port`` for messages to people; never the password."""
    parts = urlsplit(settings.redis_url.get_secret_value())
    return f"{parts.hostname}:{parts.port or 6379}"


@contextmanager
def named_errors(address: str) -> Iterator[None]:
    """Turn the client's connection errors into RedisUnavailable."""
    try:
        yield
    except redis.AuthenticationError as error:
        raise RedisUnavailable(f"Redis at {address} refuses the password: check AII_REDIS_URL.") from error
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise RedisUnavailable(
            f"Redis at {address} does not answer: start it with `aii up`, or set AII_REDIS_URL."
        ) from error
