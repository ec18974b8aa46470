"""Addresses of services as people write them into the environment: understood, or refused with what to write instead.

A refusal never repeats a part of the address, which may hold a password.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

__all__ = ["parsed_redis_url", "parsed_s3_endpoint"]

_REDIS_FORM: Final = "redis://:PASSWORD@HOST:PORT/0"
_REDIS_SCHEMES: Final = ("redis", "rediss", "unix")
_S3_FORM: Final = "HOST:PORT"
_HOST_AND_PORT: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:(?P<port>[0-9]{1,5}))?")


def parsed_redis_url(text: str) -> str:
    """The address of Redis, without blanks around it; raises ValueError, which says what to write instead."""
    text = text.strip()
    if re.search(r"\s|[\x00-\x1f]", text):
        raise ValueError(f"it contains a blank: write it as {_REDIS_FORM}, and a blank in the password as %20")
    scheme, separator, rest = text.partition("://")
    if not separator:
        raise ValueError(f"it lacks a scheme: write it as {_REDIS_FORM}, or with rediss:// for TLS")
    if scheme.lower() not in _REDIS_SCHEMES:
        raise ValueError(f"its scheme is none of redis://, rediss:// (TLS) and unix://: write it as {_REDIS_FORM}")
    login, at, place = rest.rpartition("@")
    if at and re.search(r"[#/?@\[\]]|%(?![0-9A-Fa-f]{2})", login):
        raise ValueError("in its password, write '#' as %23, '/' as %2F, '?' as %3F, '@' as %40 and '%' as %25")
    if "#" in place:
        raise ValueError(f"it contains '#': write it as {_REDIS_FORM}, and '#' in the password as %23")
    if scheme.lower() == "unix":
        _check_socket(place)
    else:
        _check_host(f"{scheme}://{place}")
    return f"{scheme.lower()}://{rest}"


def _check_host(url: str) -> None:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(f"its port is no number from 1 to 65535: write it as {_REDIS_FORM}") from None
    if not parts.hostname or port == 0 or not _HOST_AND_PORT.fullmatch(parts.netloc):
        raise ValueError(f"it names no host: write it as {_REDIS_FORM}")
    if not re.fullmatch(r"/?|/[0-9]+/?", parts.path):
        raise ValueError(f"what follows the host is not the number of a database: write it as {_REDIS_FORM}")


def _check_socket(place: str) -> None:
    path, _, query = place.partition("?")
    if not path.startswith("/") or len(path) < 2 or not re.fullmatch(r"(db=[0-9]+)?", query):
        raise ValueError("it names no socket: write it as unix:///PATH/OF/THE/SOCKET?db=0")


def parsed_s3_endpoint(text: str) -> tuple[str, bool | None]:
    """``HOST:PORT`` of S3, and whether its scheme says HTTPS; None without a scheme.

    Raises:
        ValueError: it says what to write instead.
    """
    text = text.strip()
    scheme, separator, rest = text.partition("://") if "://" in text else ("", "", text)
    if separator and scheme.lower() not in ("http", "https"):
        raise ValueError(f"its scheme is neither http:// nor https://: write it as {_S3_FORM}")
    rest = rest.rstrip("/")
    if "@" in rest:
        raise ValueError(f"it holds a login: write it as {_S3_FORM}, and set AII_S3_ACCESS_KEY and AII_S3_SECRET_KEY")
    if re.search(r"[/?#]", rest):
        raise ValueError(f"it holds a path: write it as {_S3_FORM}; buckets are set by AII_BUCKET_RESULTS and so on")
    found = _HOST_AND_PORT.fullmatch(rest)
    if not found or not 0 < int(found["port"] or 1) < 65_536:
        raise ValueError(f"it is no address: write it as {_S3_FORM}, with http:// or https:// before it if you like")
    return rest, scheme.lower() == "https" if separator else None
