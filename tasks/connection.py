"""The client of Redis: its time-outs notice a half-open socket, its errors are named in this one place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import redis
from redis.backoff import ExponentialBackoff
from redis.client import Pipeline
from redis.retry import Retry

from tasks.errors import RedisUnavailable
from tasks.settings import Settings

SOCKET_OPTIONS: Final = {
    "socket_timeout": 10.0,
    "socket_connect_timeout": 3.0,
    "socket_keepalive": True,
    "health_check_interval": 5,
}
# A Unix socket knows nothing of the others.
_UNIX_OPTIONS: Final = {name: SOCKET_OPTIONS[name] for name in ("socket_timeout", "health_check_interval")}


class RedisClient(redis.Redis):  # type: ignore[misc]  # mypy does not follow redis-py, see pyproject.toml
    """redis-py's client, which knows its `address` (``host:port``) and raises RedisUnavailable when Redis cannot be
    used: of commands, scripts, locks and pipelines alike."""

    address: str = ""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        with named_errors(self.address):
            return super().execute_command(*args, **options)

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Pipeline:
        pipe = _NamedPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        pipe.address = self.address
        return pipe


class _NamedPipeline(Pipeline):  # type: ignore[misc]
    address: str = ""

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        with named_errors(self.address):
            return list(super().execute(raise_on_error))

    def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        with named_errors(self.address):
            return super().immediate_execute_command(*args, **options)


def connect_redis(settings: Settings) -> RedisClient:
    """A thread-safe client that answers in `str`. Does not connect yet."""
    url = settings.redis_url.get_secret_value()
    client: RedisClient = RedisClient.from_url(
        url,
        decode_responses=True,
        retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), 1),
        **(_UNIX_OPTIONS if url.startswith("unix:") else SOCKET_OPTIONS),
    )
    client.address = redis_address(settings)
    return client


def broker_url(settings: Settings) -> str:
    """The address as kombu writes it: it has a scheme and a database of its own for a Unix socket."""
    url = settings.redis_url.get_secret_value()
    parts = urlsplit(url)
    if parts.scheme != "unix":
        return url
    database = parts.query.removeprefix("db=") or "0"
    return f"redis+socket://{parts.netloc}{parts.path}?virtual_host={database}"


def redis_address(settings: Settings) -> str:
    """``host:port``, or the path of a Unix socket, for messages; never the password."""
    parts = urlsplit(settings.redis_url.get_secret_value())
    if parts.scheme == "unix":
        return parts.path
    return f"{parts.hostname}:{parts.port or 6379}"


# Redis' error codes for refusing commands for a while. They are searched for in the text, because an error inside a
# script is reported as a general error that quotes it.
_REFUSALS: Final = {
    "OOM": "is full: raise its maxmemory, or remove something",
    "READONLY": "is a read-only replica: point AII_REDIS_URL at the primary",
    "MISCONF": "cannot write its files, and refuses writes until then: check its log and its disk",
    "NOREPLICAS": "lacks replicas, and refuses writes until then",
    "MASTERDOWN": "has lost its primary",
    "NOPERM": "does not let this user do that: check AII_REDIS_URL",
    "BUSY": "is busy with a script",
}


@contextmanager
def named_errors(address: str) -> Iterator[None]:
    """Turn the client's connection errors, and Redis' refusals, into RedisUnavailable: both are temporary, and the same
    call may succeed later. Any other error of Redis is a bug of the caller, and is passed on."""
    try:
        yield
    except redis.AuthenticationError as error:
        raise RedisUnavailable(f"Redis at {address} refuses the password: check AII_REDIS_URL.") from error
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise RedisUnavailable(
            f"Redis at {address} does not answer: start it with `aii up`, or set AII_REDIS_URL."
        ) from error
    except redis.ResponseError as error:
        if reason := _refusal(error):
            raise RedisUnavailable(f"Redis at {address} {reason}.") from error
        raise


def _refusal(error: redis.ResponseError) -> str | None:
    # redis-py removes the code from the text where it has a class for it.
    known = {"OutOfMemoryError": "OOM", "ReadOnlyError": "READONLY", "NoPermissionError": "NOPERM"}
    words = {known.get(type(error).__name__, ""), *re.findall(r"[A-Z]{3,}", str(error))}
    return next((reason for word, reason in _REFUSALS.items() if word in words), None)
