"""Errors of S3's client, named: what the situation is, and what to do about it."""

from __future__ import annotations

import re
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import urlsplit

from obstore.exceptions import BaseError, InvalidPathError, UnauthenticatedError

from tasks.errors import InvalidKey, ObjectMissing, StorageRefused, StorageUnavailable
from tasks.network import clock_offset_s, proxy_of

__all__ = ["MISSING", "S3Errors", "code_in"]

MISSING: Final = ("NoSuchKey", "NoSuchObject", "ResourceNotFound")
_REFUSED: Final = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch")
_SKEWED: Final = ("RequestTimeTooSkewed", "RequestExpired")
_CLOCK_TOLERANCE_S: Final = 300  # S3 accepts a quarter of an hour
# Answers of a server that is there and cannot serve now (S3's API reference, error responses); it is asked again.
_AWAY: Final = ("SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "OperationAborted", "HTTP 429")
_CODE_OF_STATUS: Final = {"401": "AccessDenied", "403": "AccessDenied", "404": "NoSuchKey"}


class S3Errors:
    """Names what goes wrong with one service, given by its URL."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._address = urlsplit(url).netloc

    @contextmanager
    def named(self, what: str) -> Iterator[None]:
        """Turn the client's errors into ObjectMissing, StorageRefused or StorageUnavailable. They are of few classes;
        what the server said is in their text."""
        try:
            yield
        except (BaseError, FileNotFoundError) as error:
            raise self._error(code_in(str(error)), what, error) from error
        except urllib.error.HTTPError as error:
            raise self._error(code_in(error.read().decode(errors="replace")), what, error) from error
        except OSError as error:
            raise self._error("", what, error) from error

    def _error(self, code: str, what: str, error: Exception) -> Exception:
        if isinstance(error, InvalidPathError):
            named = re.search(r'[Pp]ath "(.*?)"', str(error))
            return InvalidKey(
                f"{what} cannot be listed: the S3 client reads no key like {named[1][:140] if named else ''!r}, with "
                "an empty part, '.' or '..'. Rename that object."
            )
        if code in MISSING:
            return ObjectMissing(f"There is no object {what} in the store.")
        if code == "NoSuchBucket":
            return self.lacking(what)
        if code in _REFUSED or code in _SKEWED:
            # A key that may not do this is refused this object; a key or a clock that is wrong, everything.
            kind = StorageRefused if code == "AccessDenied" else StorageUnavailable
            return kind(f"S3 at {self._address} refuses {_refusal(code, self._url)}")
        if code and code not in _AWAY and not code.startswith("HTTP 5"):
            return StorageRefused(f"S3 at {self._address} answered {code} for {what}.")
        return self._away(code, what, error)

    def _away(self, code: str, what: str, error: Exception) -> StorageUnavailable:
        proxy = proxy_of(self._url)
        through = f" through the proxy {proxy}, which the environment names" if proxy else ""
        if code:
            return StorageUnavailable(f"S3 at {self._address} answered {code} for {what}{through}.")
        if isinstance(error, UnauthenticatedError):
            return StorageUnavailable(
                f"There are no keys for S3 at {self._address}: check AII_S3_CREDENTIALS and what belongs to it."
            )
        return StorageUnavailable(
            f"S3 at {self._address} does not answer{through} ({_kind_of(error)}): start it with `aii up`, "
            f"or set {'NO_PROXY or ' if proxy else ''}AII_S3_ENDPOINT."
        )

    def lacking(self, what: str) -> StorageUnavailable:
        """Unlike a refusal of one object, this meets every job: they wait until the bucket is there."""
        remedy = "make it with `aii buckets init`, or start `aii up`"
        return StorageUnavailable(f"S3 at {self._address} lacks a bucket that {what} needs: {remedy}.")


def _refusal(code: str, url: str) -> str:
    """What S3 refuses, and what to do. A clock that is off makes it refuse keys that are right."""
    offset_s = clock_offset_s(url) or 0.0
    if abs(offset_s) > _CLOCK_TOLERANCE_S:
        off = f"{abs(offset_s) / 60:,.0f} minutes {'ahead of' if offset_s > 0 else 'behind'}"
        return f"requests: this machine's clock is {off} the server's ({code}). Set it, by NTP for example."
    if code in _SKEWED:
        return f"requests as too old or too new ({code}): set the clocks of both machines, by NTP for example."
    return f"the keys ({code}): check AII_S3_ACCESS_KEY and AII_S3_SECRET_KEY."


def code_in(text: str) -> str:
    """The S3 error code in a server's answer, or, for one without a body (to HEAD), the one that its status means; ""
    when no server answered."""
    code = re.search(r"<Code>(\w+)</Code>", text)
    status = re.search(r"status code: (\d+)", text)
    if code or not status:
        return code[1] if code else ""
    return _CODE_OF_STATUS.get(status[1], f"HTTP {status[1]}")


def _kind_of(error: Exception) -> str:
    """In which phase a request failed, if the client's message names one. An unknown certificate comes last there."""
    kind = re.search(r"(InvalidCertificate)", str(error)) or re.search(r"kind: (\w+)", str(error))
    return kind[1] if kind else type(error).__name__
