"""The address of S3 as people write it into the environment: understood, or refused with what to write instead.

A refusal never repeats a part of the address, which may hold a password.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["parsed_s3_endpoint"]

_S3_FORM: Final = "HOST:PORT"
_HOST_AND_PORT: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:(?P<port>[0-9]{1,5}))?")


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
