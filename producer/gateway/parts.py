"""Forms (multipart/form-data, RFC 7578) as a stream: no part is kept, in memory or in a file."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from tasks.errors import InvalidRequest

__all__ = ["Part", "parts"]


@dataclass(frozen=True)
class Part:
    """One part of a form. Its `chunks` must be read before the next part is asked for; what is left is skipped.

    Attributes:
        filename: None for a field.
    """

    name: str
    filename: str | None
    chunks: AsyncIterator[bytes]


async def parts(content_type: str, body: AsyncIterator[bytes]) -> AsyncIterator[Part]:
    """The parts of a form; raises InvalidRequest when it is none, or damaged."""
    reader = _Reader(content_type, body)
    while (head := await reader.next_head()) is not None:
        part = Part(*head, reader.chunks())
        yield part
        async for _ in part.chunks:
            pass


class _Reader:
    """Turns the parser's callbacks into heads (name and filename) and chunks; None ends a part."""

    def __init__(self, content_type: str, body: AsyncIterator[bytes]) -> None:
        boundary = parse_options_header(content_type)[1].get(b"boundary")
        if not boundary:
            raise InvalidRequest("The form's content type lacks its boundary.")
        self._body = body
        self._events: deque[tuple[str, str | None] | bytes | None] = deque()
        self._header = (bytearray(), bytearray())
        self._disposition = b""
        self._complete = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._head,
                    "on_part_data": lambda data, start, end: self._events.append(bytes(data[start:end])),
                    "on_part_end": lambda: self._events.append(None),
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise InvalidRequest(f"The form cannot be read: {error}.") from error

    async def next_head(self) -> tuple[str, str | None] | None:
        event = await self._next()
        assert event is None or isinstance(event, tuple)
        return event

    async def chunks(self) -> AsyncIterator[bytes]:
        while True:
            event = await self._next()
            if event is None:
                return
            assert isinstance(event, bytes)
            yield event

    async def _next(self) -> tuple[str, str | None] | bytes | None:
        """The next event; None also at the form's end."""
        while not self._events:
            chunk = await anext(self._body, None)
            if chunk is None:
                if not self._complete:
                    raise InvalidRequest("The form is incomplete.")
                return None
            try:
                self._parser.write(chunk)
            except FormParserError as error:
                raise InvalidRequest(f"The form cannot be read: {error}.") from error
        return self._events.popleft()

    def _end(self) -> None:
        self._complete = True

    def _begin(self) -> None:
        self._disposition = b""

    def _header_end(self) -> None:
        name, value = self._header
        if bytes(name).lower() == b"content-disposition":
            self._disposition = bytes(value)
        self._header = (bytearray(), bytearray())

    def _head(self) -> None:
        options = parse_options_header(self._disposition)[1]
        if b"name" not in options:
            raise InvalidRequest("A part of the form has no name.")
        filename = options.get(b"filename")
        shown = None if filename is None else filename.decode("utf-8", "replace")
        self._events.append((options[b"name"].decode("utf-8", "replace"), shown))
