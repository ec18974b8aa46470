"""Images by URL, with a guard against requests that a caller has the gateway make (SSRF).

Only hosts on a list are asked. A host's name is resolved once, every address that it has must be allowed, and the
connection goes to that address: a second answer of the name service changes nothing. A redirect is a new URL, and is
checked like the first. Size and time are bounded, and proxies of the environment are not used.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing
from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit

import httpcore2 as httpcore

from producer.gateway.deadlines import TooLate, within
from producer.gateway.uploads import bounded, too_large
from tasks.errors import InvalidSetting, SourceUnavailable, UrlRefused
from tasks.settings import Settings

__all__ = ["Fetcher"]

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_MOST_REDIRECTS: Final = 3
_CONNECT_S: Final = 5.0
_READ_S: Final = 10.0
_PORTS: Final = {"http": 80, "https": 443}
_LATER: Final = (408, 425, 429)  # of a client's errors, those that say to ask again
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_LONGEST_URL: Final = 2_048
_HEADERS: Final = [("Accept", "image/*"), ("Accept-Encoding", "identity"), ("User-Agent", "active-image-indexing")]
_TIMEOUTS: Final = {"connect": _CONNECT_S, "read": _READ_S, "write": _READ_S, "pool": _READ_S}
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


class Fetcher:
    """Reads images from URLs of some hosts; see the settings AII_GATEWAY_URL_HOSTS and AII_GATEWAY_URL_NETWORKS.

    Raises InvalidSetting when a network is none.

    Args:
        total_s: seconds for one image, redirects and all, however slowly its host sends heads and bodies.
    """

    def __init__(self, settings: Settings, total_s: float = 60.0) -> None:
        self._total_s = total_s
        self._hosts = _listed(settings.gateway_url_hosts.lower())
        try:
            networks = [ipaddress.ip_network(text) for text in _listed(settings.gateway_url_networks)]
        except ValueError as error:
            raise InvalidSetting(f"AII_GATEWAY_URL_NETWORKS: {error}.") from error
        self._most = settings.max_image_bytes
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl.create_default_context(), network_backend=_GuardedNetwork(networks), keepalive_expiry=5.0
        )

    async def close(self) -> None:
        await self._pool.aclose()

    async def read(self, url: str) -> AsyncGenerator[bytes]:
        """The bytes behind a URL, as they arrive.

        Raises:
            UrlRefused: it is not allowed, or there is no image to be had.
            SourceUnavailable: its host is down, or answers with an error of its own, or too late.
            TooLarge: there is more than AII_MAX_IMAGE_BYTES; raised before reading when the server says so.
        """
        try:
            async with aclosing(self._followed(url)) as chunks:
                async for chunk in within(chunks, self._total_s):
                    yield chunk
        except TooLate:
            raise SourceUnavailable(f"The URL gave no whole image within {self._total_s:.0f} s.") from None
        except httpcore.LocalProtocolError as error:
            raise UrlRefused("The URL cannot be asked for by HTTP.") from error
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, OSError) as error:
            raise SourceUnavailable(f"The image's host does not give it ({type(error).__name__}).") from error

    async def _followed(self, url: str) -> AsyncGenerator[bytes]:
        for _ in range(_MOST_REDIRECTS + 1):
            self._check(url)
            async with self._pool.stream("GET", url, headers=_HEADERS, extensions={"timeout": _TIMEOUTS}) as answer:
                location = _header(answer, b"location")
                if answer.status not in _REDIRECTS or not location:
                    async for chunk in self._body(answer):
                        yield chunk
                    return
                url = _joined(url, location)
        raise UrlRefused(f"The URL leads to more than {_MOST_REDIRECTS} redirects.")

    def _body(self, answer: httpcore.Response) -> AsyncIterator[bytes]:
        if answer.status in _LATER or answer.status >= 500:
            raise SourceUnavailable(f"The image's host answered {answer.status}.")
        if answer.status != 200:
            raise UrlRefused(f"The image's host answered {answer.status}.")
        if _header(answer, b"content-encoding") not in ("", "identity"):
            raise UrlRefused("The image's host compresses what it sends, though asked not to.")
        length = _header(answer, b"content-length")
        if length.isdigit() and int(length) > self._most:
            raise too_large(self._most, "The image")
        return bounded(answer.aiter_stream(), self._most, "The image")

    def _check(self, url: str) -> None:
        """Raise UrlRefused unless the URL names a host of the list, and holds no login."""
        parts = _split(url)
        host, port = (parts.hostname or "").rstrip("."), parts.port
        if parts.username is not None or parts.password is not None:
            raise UrlRefused("A URL with a login in it is not taken.")
        if not any(_fits(host, port or _PORTS[parts.scheme], _PORTS[parts.scheme], entry) for entry in self._hosts):
            raise UrlRefused("The URL's host is not on the list AII_GATEWAY_URL_HOSTS: send the image itself.")


class _GuardedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to the address that was checked."""

    def __init__(self, allowed: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> None:
        self._allowed = tuple(allowed)
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:  # fmt: skip
        addresses = await self._resolve(host, port)
        return await self._inner.connect_tcp(str(addresses[0]), port, timeout, local_address, socket_options)

    async def sleep(self, seconds: float) -> None:
        await self._inner.sleep(seconds)

    async def _resolve(self, host: str, port: int) -> list[_Address]:
        """All addresses of a host; raises UrlRefused when one of them is not allowed."""
        loop = asyncio.get_running_loop()
        try:
            found = await asyncio.wait_for(loop.getaddrinfo(host, port, type=socket.SOCK_STREAM), _CONNECT_S)
        except UnicodeError:  # an empty label, or one of more than 63 characters
            raise UrlRefused("The URL's host is no name.") from None
        except socket.gaierror as error:
            if error.errno == socket.EAI_NONAME:
                raise UrlRefused("The URL's host has no address.") from None
            raise
        addresses = [ipaddress.ip_address(entry[4][0]) for entry in found]
        if not addresses or not all(map(self._may_reach, addresses)):
            raise UrlRefused("The URL's host has an address that is not public: see AII_GATEWAY_URL_NETWORKS.")
        return addresses

    def _may_reach(self, address: _Address) -> bool:
        if any(address in network for network in self._allowed):
            return True
        return address.is_global and not address.is_multicast and all(map(self._may_reach, _embedded(address)))


def _embedded(address: _Address) -> list[ipaddress.IPv4Address]:
    """The IPv4 addresses that an IPv6 address is translated to."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64:
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [inner for inner in found if inner is not None]


def _split(url: str) -> SplitResult:
    """Raises UrlRefused for what is no URL of an image."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # raises ValueError for one that is no number
    except ValueError:
        raise UrlRefused("The source is no URL.") from None
    # Parsers differ in what they make of blanks and backslashes; no URL has any.
    odd = len(url) > _LONGEST_URL or any(not "!" <= character <= "~" or character == "\\" for character in url)
    if parts.scheme not in _PORTS or not parts.hostname or odd:
        raise UrlRefused("The source is no http:// or https:// URL of at most 2,048 ASCII characters.")
    return parts


def _joined(url: str, location: str) -> str:
    """Where a redirect leads; raises UrlRefused when that is no URL."""
    try:
        return urljoin(url, location)
    except ValueError:
        raise UrlRefused("The URL redirects to what is no URL.") from None


def _fits(host: str, port: int, usual_port: int, entry: str) -> bool:
    """Whether a host and a port are those of an entry of the list; an entry without a port means the usual one."""
    name, _, own_port = entry.partition(":")
    if port != (int(own_port) if own_port.isdigit() else usual_port):
        return False
    return host.endswith(name[1:]) if name.startswith("*.") else host == name


def _listed(text: str) -> list[str]:
    return [entry.strip() for entry in text.split(",") if entry.strip()]


def _header(answer: httpcore.Response, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in answer.headers if key.lower() == name), "")
