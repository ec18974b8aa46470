"""What lies between this process and a service: a proxy that the environment names, and two clocks."""

from __future__ import annotations

import ipaddress
import time
import urllib.error
import urllib.request
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

__all__ = ["clock_offset_s", "is_loopback", "opener_for", "proxy_of"]

_TIMEOUT_S: Final = 5


def is_loopback(host: str) -> bool:
    """Whether a host is this machine: such a service is never reached through a proxy."""
    name = host.strip("[]").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def proxy_of(url: str) -> str | None:
    """``HOST:PORT`` of the proxy through which a URL is reached, without its login; None where there is none."""
    parts = urlsplit(url)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or is_loopback(parts.hostname or "") or urllib.request.proxy_bypass(parts.netloc):
        return None
    return urlsplit(proxy if "://" in proxy else f"//{proxy}").netloc.rpartition("@")[2]


def opener_for(url: str) -> urllib.request.OpenerDirector:
    """Opens URLs on this machine without a proxy, and others as the environment says."""
    if is_loopback(urlsplit(url).hostname or ""):
        return urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return urllib.request.build_opener()


def clock_offset_s(url: str) -> float | None:
    """Seconds by which this machine's clock is ahead of a server's, whole ones; None where the server does not say."""
    try:
        with opener_for(url).open(urllib.request.Request(url, method="HEAD"), timeout=_TIMEOUT_S) as answer:
            date = answer.headers.get("Date")
    except urllib.error.HTTPError as error:  # a refusal is an answer too
        date = error.headers.get("Date")
        error.close()
    except (OSError, ValueError):
        return None
    try:
        return time.time() - parsedate_to_datetime(date).timestamp() if date else None
    except (TypeError, ValueError):
        return None
