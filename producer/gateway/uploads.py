"""Images on their way into S3, under the digest of their bytes, which is known only when the last of them is there.

A small image is held in memory and stored at once. Of a larger one no more than a few parts are in memory: it is stored
under a name of its own below `incoming/`, and copied to its digest's within S3.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from typing import Final

import obstore

from tasks.errors import AiiError, EmptyImage, TooLarge
from tasks.formats import HEAD_BYTES, format_of
from tasks.messages import Source
from tasks.names import check_key
from tasks.storage import Bucket, ObjectStore

__all__ = ["STAGING", "GatewayStore", "bounded"]

STAGING: Final = "incoming/"
_IN_MEMORY: Final = 4 * 2**20  # S3 takes parts of at least five
_PARTS_AT_ONCE: Final = 2


async def bounded(chunks: AsyncIterator[bytes], most: int, what: str) -> AsyncIterator[bytes]:
    """The same chunks; raises TooLarge as soon as they are more than `most` bytes."""
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > most:
            raise too_large(most, what)
        yield chunk


def too_large(most: int, what: str) -> TooLarge:
    return TooLarge(f"{what} has more than the limit of {most:,} bytes.")


class GatewayStore(ObjectStore):
    """The store, awaited instead of waited for by a thread. Errors are those of :class:`tasks.storage.ObjectStore`."""

    async def keep(self, bucket: Bucket, chunks: AsyncIterator[bytes], most: int) -> Source:
        """Store an image under the digest of its bytes.

        Raises:
            EmptyImage, TooLarge: nothing was stored.
        """
        chunks = bounded(chunks, most, "The image")
        digest, head = hashlib.sha256(), bytearray()
        async for chunk in chunks:
            digest.update(chunk)
            head += chunk
            if len(head) > _IN_MEMORY:
                return await self._keep_large(bucket, bytes(head), chunks, digest)
        if not head:
            raise EmptyImage("The image is empty: was its transfer cut off?")
        key = digest.hexdigest()
        with self._errors(key):
            attributes = {"Content-Type": _content_type(head)}
            store = self._stores[bucket]
            await obstore.put_async(store, key, bytes(head), attributes=attributes, use_multipart=False)
        return Source(sha256=key, size=len(head))

    async def _keep_large(
        self, bucket: Bucket, head: bytes, rest: AsyncIterator[bytes], digest: hashlib._Hash
    ) -> Source:
        size = len(head)

        async def all_chunks() -> AsyncIterator[bytes]:
            nonlocal size
            yield head
            async for chunk in rest:
                digest.update(chunk)
                size += len(chunk)
                yield chunk

        staged, store = f"{STAGING}{secrets.token_hex(16)}", self._stores[bucket]
        attributes = {"Content-Type": _content_type(head)}
        with self._errors(staged):
            await obstore.put_async(store, staged, all_chunks(), attributes=attributes, max_concurrency=_PARTS_AT_ONCE)
        key = digest.hexdigest()
        try:
            with self._errors(key):
                await obstore.copy_async(store, staged, key)
        finally:
            with suppress(AiiError), self._errors(staged):
                await obstore.delete_async(store, staged)
        return Source(sha256=key, size=size)

    def link(self, bucket: Bucket, key: str, valid_s: int) -> str:
        """A URL under which anyone can read one object for `valid_s` seconds."""
        with self._errors(key):
            return obstore.sign(self._stores[bucket], "GET", check_key(key), timedelta(seconds=valid_s))


def _content_type(head: bytes | bytearray) -> str:
    """MIME type for the store. Only the worker decides whether the bytes are an image that can be used."""
    known = format_of(bytes(head[:HEAD_BYTES]))
    return known.content_type if known else "application/octet-stream"
