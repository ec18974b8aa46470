"""Clients of Redis, whatever its address is: their time-outs notice a half-open socket, and behind sentinels they wait
for the next primary."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from functools import partial
from typing import Any, Final
from urllib.parse import quote

import redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.client import Pipeline
from redis.commands.core import Script
from redis.exceptions import NoScriptError
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from tasks.errors import RedisUnavailable
from tasks.failover import FAILOVER_WAIT_S, NO_FAILOVER, Failover
from tasks.redis_address import RedisAddress, redis_address_of
from tasks.redis_errors import named_errors, refuse_other_services
from tasks.settings import Settings

SOCKET_OPTIONS: Final = {
    "socket_timeout": 10.0,
    "socket_connect_timeout": 3.0,
    "socket_keepalive": True,
    "health_check_interval": 5,
}
# A Unix socket knows nothing of the others.
_UNIX_OPTIONS: Final = {name: SOCKET_OPTIONS[name] for name in ("socket_timeout", "health_check_interval")}
_SENTINEL_OPTIONS: Final = {"socket_timeout": 1.0, "socket_connect_timeout": 1.0}


class RedisClient(redis.Redis):  # type: ignore[misc]  # mypy does not follow redis-py, see pyproject.toml
    """redis-py's client, which knows its `address` (``host:port``) and raises RedisUnavailable when Redis cannot be
    used: of commands, scripts, locks and pipelines alike."""

    address: str = ""
    failover: Failover = NO_FAILOVER

    def execute_command(self, *args: Any, **options: Any) -> Any:
        command = partial(super().execute_command, *args, **options)
        with named_errors(self.address):
            return self.failover.call(command)

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Pipeline:
        pipe = _NamedPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        pipe.address, pipe.failover = self.address, self.failover
        return pipe

    def register_script(self, script: str) -> Script:
        return _NamedScript(self, script)

    def check(self) -> None:
        """Ask for an answer.

        Raises:
            RedisUnavailable: there is none, or the login is refused, or it is a replica.
            InvalidSetting: what answers is a sentinel, part of a cluster, or no Redis.
        """
        with named_errors(self.address):
            told = super().execute_command("HELLO")  # at once: the caller wants to know how it is now
        if isinstance(told, list):  # by the older of the two protocols
            told = dict(zip(told[::2], told[1::2], strict=False))
        refuse_other_services(self.address, told)


class _NamedScript(Script):  # type: ignore[misc]
    def __call__(self, *args: Any, **options: Any) -> Any:
        """redis-py loads a script that the server does not know, once: in between, another server may have become the
        primary, or someone may have removed all scripts."""
        try:
            return super().__call__(*args, **options)
        except NoScriptError as error:
            raise RedisUnavailable("Redis has just forgotten a script: try again.") from error


class _NamedPipeline(Pipeline):  # type: ignore[misc]
    address: str = ""
    failover: Failover = NO_FAILOVER
    command_stack: list[Any]
    scripts: set[Any]

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        commands, scripts, watching = self.command_stack, self.scripts, self.watching
        execute = partial(super().execute, raise_on_error)

        def attempt() -> list[Any]:
            self.command_stack, self.scripts = commands, scripts  # the attempt before has emptied them
            return list(execute())

        with named_errors(self.address):
            return attempt() if watching else self.failover.call(attempt)  # what was watched was watched there

    def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        with named_errors(self.address):
            return super().immediate_execute_command(*args, **options)


def connect_redis(settings: Settings) -> RedisClient:
    """A thread-safe client that answers in `str`. Does not connect yet.

    Bytes that are no UTF-8 are read as lone surrogates, and written back as those bytes: one odd record, among many in
    an answer, is that record's trouble.
    """
    address = _address(settings)
    login = {"db": address.database, "username": address.username, "password": address.password}
    answers = {"decode_responses": True, "encoding_errors": "surrogateescape"}
    options = {**login, **_tls_options(address), **answers, "retry": _once_more()}
    if address.primary:
        client: RedisClient = _behind_sentinels(address, options)
    elif address.socket:
        client = RedisClient(unix_socket_path=address.socket, **_UNIX_OPTIONS, **options)
    else:
        host, port = address.hosts[0]
        client = RedisClient(host=host, port=port, **SOCKET_OPTIONS, **options)
    client.address = str(address)
    client.failover = Failover(client.address) if address.primary else NO_FAILOVER
    return client


def _behind_sentinels(address: RedisAddress, options: Mapping[str, Any]) -> RedisClient:
    """Every new connection asks the sentinels for the primary; a primary that became a replica is left at its first
    refusal."""
    sentinels = Sentinel(address.hosts, sentinel_kwargs=_sentinel_options(address))
    client: RedisClient = RedisClient.from_pool(
        SentinelConnectionPool(address.primary, sentinels, **SOCKET_OPTIONS, **options)
    )
    return client


def _once_more() -> Retry:
    """For a connection that the server has closed meanwhile."""
    return Retry(ExponentialBackoff(cap=0.5, base=0.05), 1)


def _sentinel_options(address: RedisAddress) -> dict[str, Any]:
    username, password = address.sentinel_login
    login = {"username": username, "password": password, "retry": Retry(NoBackoff(), 0)}
    return {**_SENTINEL_OPTIONS, **login, **_tls_options(address)}


def _tls_options(address: RedisAddress) -> dict[str, Any]:
    """As redis-py takes them. Unless the address says otherwise, the server has to prove that it is that host."""
    if address.tls is None:
        return {}
    given = dict(address.tls)
    verify = given.pop("ssl_cert_reqs", "required") == "required"
    named = verify and given.pop("ssl_check_hostname", "true") == "true"
    return {
        "ssl": True,
        "ssl_cert_reqs": ssl.CERT_REQUIRED if verify else ssl.CERT_NONE,
        **given,
        "ssl_check_hostname": named,
    }


# ── for Celery ───────────────────────────────────────────────────────────────────────────────────────────────────────


def broker_url(settings: Settings) -> str:
    """The address as kombu writes it. It has a scheme and a database of its own for a Unix socket, and one URL for each
    sentinel; options of TLS are given apart (:func:`broker_options`)."""
    address = _address(settings)
    login = ""
    if address.username or address.password:
        login = f"{quote(address.username or '', safe='')}:{quote(address.password or '', safe='')}@"
    if address.socket:
        return f"redis+socket://{login}{address.socket}?virtual_host={address.database}"
    scheme = "sentinel" if address.primary else "rediss" if address.tls is not None else "redis"
    hosts = (f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in address.hosts)
    return ";".join(f"{scheme}://{login}{host}/{address.database}" for host in hosts)


def broker_options(settings: Settings) -> dict[str, Any]:
    """Celery's settings of the connection to Redis."""
    address = _address(settings)
    transport: dict[str, Any] = {
        **SOCKET_OPTIONS,
        # The ledger sends lost messages again. Celery's own redelivery is a fallback; early, it would only duplicate.
        "visibility_timeout": 3600,
    }
    if address.primary:
        transport |= {"master_name": address.primary, "sentinel_kwargs": _sentinel_options(address)}
    tls = _tls_options(address)
    tls.pop("ssl", None)
    return {"broker_transport_options": transport, "broker_use_ssl": tls or None}


def sending_policy(settings: Settings) -> dict[str, Any]:
    """How often the sending of a message is repeated: while sentinels choose another primary. A job whose message is
    not sent is in the ledger already, and a worker sends it."""
    if not _address(settings).primary:
        return {"retry": False}
    pauses = {"interval_start": 0.0, "interval_step": 0.2, "interval_max": 1.0}
    return {"retry": True, "retry_policy": {"max_retries": int(FAILOVER_WAIT_S), **pauses}}


def redis_address(settings: Settings) -> str:
    """``host:port``, the path of a Unix socket, or a primary and its sentinels, for messages; never the password."""
    return str(_address(settings))


def _address(settings: Settings) -> RedisAddress:
    return redis_address_of(settings.redis_url.get_secret_value())
