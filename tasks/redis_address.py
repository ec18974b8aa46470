"""The address of Redis (AII_REDIS_URL), taken apart: a server, a socket, or the sentinels of a set that fails over.

A refusal says what to write instead, and never repeats a part of the address, which may hold a password.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote

__all__ = ["RedisAddress", "parsed_redis_url", "redis_address_of"]

_FORM: Final = "redis://:PASSWORD@HOST:PORT/0"
_SENTINEL_FORM: Final = "sentinel://:PASSWORD@HOST:PORT,HOST:PORT,HOST:PORT/PRIMARY/0"
_PORTS: Final = {"redis": 6379, "rediss": 6379, "sentinel": 26379, "sentinels": 26379}
_SCHEMES: Final = (*_PORTS, "unix")
_WITH_TLS: Final = ("rediss", "sentinels")
_WITH_SENTINELS: Final = ("sentinel", "sentinels")
_HOST_AND_PORT: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:(?P<port>[0-9]{1,5}))?")
# As redis-py names them.
_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_TLS: Final = (*_FILES, "ssl_cert_reqs", "ssl_check_hostname")
_SENTINEL_LOGIN: Final = ("sentinel_username", "sentinel_password")


@dataclass(frozen=True)
class RedisAddress:
    """Where Redis is, and how to get in.

    Attributes:
        hosts: of one server, or of sentinels; empty for a socket.
        primary: the name under which the sentinels watch the server; "" without sentinels.
        tls: None without; otherwise the options of the address, by redis-py's names: files of the authority and of the
            client's own certificate, `ssl_cert_reqs`, `ssl_check_hostname`.
        sentinel_login: username and password of the sentinels themselves, where they ask for one.
    """

    hosts: tuple[tuple[str, int], ...] = ()
    socket: str = ""
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    primary: str = ""
    tls: dict[str, str] | None = None
    sentinel_login: tuple[str | None, str | None] = field(default=(None, None), repr=False)

    def __str__(self) -> str:
        """``host:port``, the path of a socket, or ``NAME (sentinels HOST:PORT, …)``; never the password."""
        if self.socket:
            return self.socket
        hosts = ", ".join(f"{host}:{port}" for host, port in self.hosts)
        return f"{self.primary} (sentinels {hosts})" if self.primary else hosts


def parsed_redis_url(text: str) -> str:
    """The address, without blanks around it and with its scheme in small letters.

    Raises:
        ValueError: it says what to write instead.
    """
    text = text.strip()
    if re.search(r"\s|[\x00-\x1f]", text):
        raise ValueError(f"it contains a blank: write it as {_FORM}, and a blank in the password as %20")
    scheme, separator, rest = text.partition("://")
    if not separator:
        raise ValueError(f"it lacks a scheme: write it as {_FORM}, or with rediss:// for TLS")
    url = f"{scheme.lower()}://{rest}"
    redis_address_of(url)
    return url


def redis_address_of(url: str) -> RedisAddress:
    """The parts of an address; raises ValueError as above."""
    scheme, _, rest = url.partition("://")
    if scheme not in _SCHEMES:
        raise ValueError(
            "its scheme is none of redis://, rediss:// (TLS), sentinel://, sentinels:// (TLS) and unix://: "
            f"write it as {_FORM}"
        )
    login, at, place = rest.rpartition("@")
    if at and re.search(r"[#/?@\[\]]|%(?![0-9A-Fa-f]{2})", login):
        raise ValueError("in its password, write '#' as %23, '/' as %2F, '?' as %3F, '@' as %40 and '%' as %25")
    if "#" in place:
        raise ValueError(f"it contains '#': write it as {_FORM}, and '#' in the password as %23")
    username, _, password = login.partition(":")
    address = RedisAddress(username=unquote(username) or None, password=unquote(password) or None)
    before, _, query = place.partition("?")
    if scheme == "unix":
        return _of_socket(address, before, query)
    netloc, _, path = before.partition("/")
    address = replace(_of_sentinels(address, path) if scheme in _WITH_SENTINELS else _of_server(address, path),
                      hosts=_hosts(scheme, netloc))  # fmt: skip
    return _with_options(address, scheme, query)


def _of_socket(address: RedisAddress, path: str, query: str) -> RedisAddress:
    if not path.startswith("/") or len(path) < 2 or not re.fullmatch(r"(db=[0-9]+)?", query):
        raise ValueError("it names no socket: write it as unix:///PATH/OF/THE/SOCKET?db=0")
    return replace(address, socket=path, database=int(query.removeprefix("db=") or "0"))


def _of_server(address: RedisAddress, path: str) -> RedisAddress:
    if not re.fullmatch(r"[0-9]*/?", path):
        raise ValueError(f"what follows the host is not the number of a database: write it as {_FORM}")
    return replace(address, database=int(path.strip("/") or "0"))


def _of_sentinels(address: RedisAddress, path: str) -> RedisAddress:
    found = re.fullmatch(r"(?P<primary>[A-Za-z0-9._-]+)(/(?P<database>[0-9]*))?/?", path)
    if not found:
        raise ValueError(f"what follows the hosts is not the name of a primary: write it as {_SENTINEL_FORM}")
    return replace(address, primary=found["primary"], database=int(found["database"] or "0"))


def _hosts(scheme: str, netloc: str) -> tuple[tuple[str, int], ...]:
    form = _SENTINEL_FORM if scheme in _WITH_SENTINELS else _FORM
    hosts = tuple(_host(text, _PORTS[scheme], form) for text in netloc.split(","))
    if len(hosts) > 1 and scheme not in _WITH_SENTINELS:
        raise ValueError(f"it names several hosts: name one, or the sentinels of a set as {_SENTINEL_FORM}")
    return hosts


def _host(text: str, default_port: int, form: str) -> tuple[str, int]:
    found = _HOST_AND_PORT.fullmatch(text)
    if not found and not re.fullmatch(r"[A-Za-z0-9._-]+:.*", text):
        raise ValueError(f"it names no host: write it as {form}")
    port = int(found["port"] or default_port) if found else 0
    if not found or not 0 < port < 65_536:
        raise ValueError(f"its port is no number from 1 to 65535: write it as {form}")
    return found[1].strip("[]"), port


def _with_options(address: RedisAddress, scheme: str, query: str) -> RedisAddress:
    """What follows the question mark. Files have to be there: a path that is wrong would look like a server that is
    away."""
    tls = scheme in _WITH_TLS
    known = (*(_TLS if tls else ()), *(_SENTINEL_LOGIN if scheme in _WITH_SENTINELS else ()))
    options = dict(parse_qsl(query, keep_blank_values=True))
    if any(name not in known for name in options):
        allowed = f"only {', '.join(known)} may stand there" if known else f"nothing may stand there with {scheme}://"
        raise ValueError(f"what it has after '?' is not understood: {allowed}")
    if missing := [name for name in _FILES if name in options and not Path(options[name]).is_file()]:
        raise ValueError(f"the file that its {missing[0]} names is not there: correct the path")
    if options.get("ssl_cert_reqs", "required") not in ("required", "none"):
        raise ValueError("its ssl_cert_reqs is neither required nor none")
    if options.get("ssl_check_hostname", "true") not in ("true", "false"):
        raise ValueError("its ssl_check_hostname is neither true nor false")
    login = (options.get("sentinel_username"), options.get("sentinel_password"))
    return replace(address, sentinel_login=login, tls={k: options[k] for k in _TLS if k in options} if tls else None)
