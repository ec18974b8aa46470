"""Notifications of S3, in the form in which MinIO and AWS write them, and the list in which they wait.

aii:ingest:{bucket}         list: MinIO appends here (MINIO_NOTIFY_REDIS_KEY, format `access`), and so does the gateway
aii:ingest:{bucket}:taken   list: what a bridge is at; a bridge that starts puts it back
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote_plus

from tasks.connection import RedisClient

__all__ = ["Notifications", "Uploaded", "list_key", "uploads"]

_CREATED: Final = "s3:ObjectCreated:"
_TEST: Final = "s3:TestEvent"  # AWS sends one when notifications are set up


@dataclass(frozen=True)
class Uploaded:
    """An object that is new, or has new content."""

    bucket: str
    key: str
    etag: str


def list_key(bucket: str) -> str:
    """The Redis list in which a bucket's notifications wait."""
    return f"aii:ingest:{bucket}"


def uploads(text: str | bytes) -> list[Uploaded]:
    """The new objects that a notification tells of; none when it is of something else, such as a removal.

    Raises:
        ValueError: it is no notification.
    """
    try:
        said = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return [_uploaded(record) for record in _records(said) if _created(record)]


def _records(said: Any) -> Iterator[Any]:
    """MinIO's list has ``[{"Event": [records], "EventTime": …}]``, its webhooks ``{"Records": [records]}``."""
    for one in said if isinstance(said, list) else [said]:
        if not isinstance(one, dict):
            raise ValueError("it is no object")
        found = one.get("Event", one.get("Records"))
        if found is None:
            raise ValueError("it has no records")
        if found != _TEST:
            yield from found if isinstance(found, list) else [found]


def _created(record: Any) -> bool:
    if not isinstance(record, dict):
        raise ValueError("a record is no object")
    name = str(record.get("eventName", ""))
    return name.startswith((_CREATED, _CREATED.removeprefix("s3:")))  # AWS leaves the prefix out


def _uploaded(record: dict[str, Any]) -> Uploaded:
    try:
        s3 = record["s3"]
        bucket, key, etag = s3["bucket"]["name"], s3["object"]["key"], s3["object"].get("eTag", "")
    except (KeyError, TypeError, AttributeError):
        raise ValueError("a record names no object") from None
    if not all(isinstance(value, str) for value in (bucket, key, etag)):
        raise ValueError("a record names no object")
    key = unquote_plus(key)
    key.encode()  # UnicodeEncodeError, a ValueError: half of a surrogate pair names nothing
    return Uploaded(bucket, key, etag.strip('"'))


class Notifications:
    """The list of one bucket. Raises RedisUnavailable."""

    def __init__(self, client: RedisClient, key: str) -> None:
        self._client = client
        self._key = key
        self._taken = f"{key}:taken"

    def append(self, text: str) -> None:
        self._client.rpush(self._key, text)

    def put_back(self) -> None:
        """What a bridge that died was at is first again. If it lives, an object is submitted twice, as one job."""
        while self._client.lmove(self._taken, self._key, "RIGHT", "LEFT") is not None:
            pass

    def take(self, most: int, wait_s: float) -> list[str]:
        """The next ones; waits for the first."""
        first = self._client.blmove(self._key, self._taken, wait_s, "LEFT", "RIGHT")
        if first is None:
            return []
        pipe = self._client.pipeline(transaction=False)
        for _ in range(most - 1):
            pipe.lmove(self._key, self._taken, "LEFT", "RIGHT")
        return [first, *(text for text in pipe.execute() if text is not None)]

    def done(self, texts: Sequence[str]) -> None:
        pipe = self._client.pipeline(transaction=True)
        for text in texts:
            pipe.lrem(self._taken, 1, text)
        pipe.execute()
