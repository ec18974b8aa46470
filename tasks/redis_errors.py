"""Errors of Redis' client, named: what the situation is, and what to do about it."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import redis
from redis.sentinel import MasterNotFoundError

from tasks.errors import AiiError, InvalidSetting, RedisUnavailable

__all__ = ["named_errors", "refuse_other_services"]

_E = TypeVar("_E", bound=BaseException)

# Redis' error codes for refusing commands for a while. They are searched for in the text, because an error inside a
# script is reported as a general error that quotes it.
_REFUSALS: Final = {
    "OOM": "is full: raise its maxmemory, or remove something",
    "READONLY": "is a read-only replica: point AII_REDIS_URL at the primary, or at the sentinels that know it",
    "MISCONF": "cannot write its files, and refuses writes until then: check its log and its disk",
    "NOREPLICAS": "lacks replicas, and refuses writes until then",
    "MASTERDOWN": "has lost its primary",
    "LOADING": "is reading its files",
    "NOPERM": "does not let this user do that: check AII_REDIS_URL",
    "BUSY": "is busy with a script",
}
_NO_TLS: Final = "correct the port, or the scheme in AII_REDIS_URL"
_OF_A_CLUSTER: Final = ("MOVED", "ASK", "CROSSSLOT", "CLUSTERDOWN")
# redis-py removes the code from the text where it has a class for it.
_CODES: Final = {
    "OutOfMemoryError": "OOM",
    "ReadOnlyError": "READONLY",
    "NoPermissionError": "NOPERM",
    "MovedError": "MOVED",
    "AskError": "ASK",
    "ClusterCrossSlotError": "CROSSSLOT",
    "ClusterDownError": "CLUSTERDOWN",
    "MasterDownError": "MASTERDOWN",
}


@contextmanager
def named_errors(address: str) -> Iterator[None]:
    """Turn the client's connection errors, and Redis' refusals, into RedisUnavailable: both are temporary, and the same
    call may succeed later. A server that is of another kind is an InvalidSetting. Any other error of Redis is a bug of
    the caller, and is passed on."""
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise RedisUnavailable(f"Redis at {address} {_unreachable(error)}.") from error
    except redis.InvalidResponse as error:
        raise InvalidSetting(
            f"AII_REDIS_URL: what answers at {address} is no Redis: correct the host or the port."
        ) from error
    except redis.ResponseError as error:
        if named := _named(address, error):
            raise named from error
        raise


def refuse_other_services(address: str, told: Mapping[str, Any]) -> None:
    """Raise unless a server, by its answer to HELLO, is one that takes jobs.

    Raises:
        InvalidSetting: it is a sentinel, or part of a cluster.
        RedisUnavailable: it is a replica, which may be promoted.
    """
    if told.get("mode") == "sentinel":
        raise _a_sentinel(address)
    if told.get("mode") == "cluster":
        raise _a_cluster(address)
    if told.get("role") in ("replica", "slave"):
        raise RedisUnavailable(f"Redis at {address} {_REFUSALS['READONLY']}.")


def _a_sentinel(address: str) -> InvalidSetting:
    return InvalidSetting(
        f"AII_REDIS_URL: what answers at {address} is a sentinel: write it as "
        "sentinel://:PASSWORD@HOST:PORT,HOST:PORT,HOST:PORT/PRIMARY/0."
    )


def _a_cluster(address: str) -> InvalidSetting:
    return InvalidSetting(
        f"AII_REDIS_URL: Redis at {address} is part of a Redis Cluster, and queues and scripts need all keys on one "
        "server: set it to a single Redis, or to the sentinels of one."
    )


def _unreachable(error: Exception) -> str:
    """What a connection failed over; the cause is somewhere in the chain of errors that led to it."""
    if isinstance(error, redis.AuthenticationError):
        return "refuses the password: check AII_REDIS_URL"
    if isinstance(error, MasterNotFoundError):
        return _unknown_primary(error)
    if cause := _cause(error, ssl.SSLError):
        return _tls_problem(cause)
    if "handshake" in str(_cause(error, OSError)):
        return f"does not answer by TLS: {_NO_TLS}"
    if re.search(r"closed by server|reset by peer", str(error)):
        return (
            "does not answer, and ends the connection: start it with `aii up`; or it wants TLS (rediss://), or a "
            "client's certificate (?ssl_certfile=FILE&ssl_keyfile=FILE): set AII_REDIS_URL"
        )
    return "does not answer: start it with `aii up`, or set AII_REDIS_URL"


def _unknown_primary(error: MasterNotFoundError) -> str:
    """redis-py lists what each sentinel failed with behind a colon."""
    _, failed, problems = str(error).partition(" : ")
    if "Authentication" in problems:
        return "is not told: its sentinels ask for a password: add ?sentinel_password=PASSWORD to AII_REDIS_URL"
    if failed:
        return "is not told: its sentinels do not answer, or know no working primary of that name"
    return "is not known to its sentinels as a working primary: wait for their failover, or check AII_REDIS_URL"


def _tls_problem(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"shows a certificate that is not trusted ({error.verify_message}): name its authority by "
            "?ssl_ca_certs=FILE in AII_REDIS_URL"
        )
    if error.reason in ("WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"):
        return f"does not speak TLS: {_NO_TLS}"
    return (
        f"ended the TLS handshake ({error.reason}): name the client's certificate by "
        "?ssl_certfile=FILE&ssl_keyfile=FILE in AII_REDIS_URL"
    )


def _cause(error: BaseException, kind: type[_E]) -> _E | None:
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, kind):
        seen = seen.__cause__ or seen.__context__
    return seen


def _named(address: str, error: redis.ResponseError) -> AiiError | None:
    words = {_CODES.get(type(error).__name__, ""), *re.findall(r"[A-Z]{3,}", str(error))}
    if words.intersection(_OF_A_CLUSTER):
        return _a_cluster(address)
    if "unknown command 'SENTINEL" in str(error):
        return InvalidSetting(
            f"AII_REDIS_URL: what answers for {address} is no sentinel: write a single Redis as redis://HOST:PORT."
        )
    if unknown := re.search(r"unknown command '?`?(\w+)", str(error)):
        return InvalidSetting(
            f"AII_REDIS_URL: what answers at {address} does not know the command {unknown[1]}: it is a sentinel, or a "
            "Redis that is too old."
        )
    reason = next((reason for word, reason in _REFUSALS.items() if word in words), None)
    return RedisUnavailable(f"Redis at {address} {reason}.") if reason else None
