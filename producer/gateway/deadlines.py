"""Streams that must end in time: the time-outs of clients and servers begin anew with each byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

__all__ = ["TooLate", "within"]


class TooLate(Exception):
    """The time of a stream is over."""


async def within(chunks: AsyncIterator[bytes], total_s: float) -> AsyncGenerator[bytes]:
    """The same chunks; raises TooLate when they have not ended after `total_s` seconds."""
    deadline = asyncio.get_running_loop().time() + total_s
    while True:
        try:
            async with asyncio.timeout_at(deadline) as limit:
                chunk = await anext(chunks, None)
        except TimeoutError as error:  # the stream's own, of a connection for example, is passed on
            if limit.expired():
                raise TooLate from error
            raise
        if chunk is None:
            return
        yield chunk
