"""What a submission holds: the parameters, and the image or where it is.

The body is one of three:

* the image itself (`image/*`, `application/octet-stream`), with the parameters in the query string;
* a form (`multipart/form-data`) with the image as its file, and the parameters as fields;
* JSON, with the image's address as `source`: a URL, or the name of an object in S3.

A form and JSON may leave parameters to the query string. There and in a form, `options` and `meta` are JSON.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from starlette.requests import Request

from producer.gateway.deadlines import TooLate, within
from producer.gateway.parts import parts
from producer.gateway.uploads import bounded, too_large
from tasks.errors import DeadlineExceeded, InvalidRequest
from tasks.messages import Source

__all__ = ["MEDIA_TYPES", "Keep", "Submission", "read_image", "read_json", "read_submission"]

P = TypeVar("P")

# Stores an image while it arrives.
Keep = Callable[[AsyncIterator[bytes]], Awaitable[Source]]

FORM: Final = "multipart/form-data"
JSON: Final = "application/json"
MEDIA_TYPES: Final = (FORM, JSON, "application/octet-stream", "image/*")
_MOST_JSON_BYTES: Final = 64 * 2**10
_MOST_FIELDS: Final = 16
_FORM_MARGIN: Final = 2**20  # what a form may have besides its file
_BODY_S: Final = 300.0  # for a body to arrive
_STRUCTURED: Final = ("options", "meta")


@dataclass(frozen=True)
class Submission(Generic[P]):
    """The parameters; `image` when it came with them, and the name of its file."""

    parameters: P
    image: Source | None = None
    filename: str = ""


async def read_submission(
    request: Request, most: int, accept: Callable[[Mapping[str, Any]], P], keep: Keep
) -> Submission[P]:
    """Read a request's body.

    Args:
        most: bytes that the image may have.
        accept: makes parameters of what was said, or raises: before the image is read, unless a form says it later.
        keep: receives the image while it arrives.

    Raises:
        TooLarge: the body is larger than allowed; raised before it is read when the request says so.
        InvalidRequest: it is none of the three.
        DeadlineExceeded: it did not arrive in time.
    """
    content_type = request.headers.get("content-type", "")
    kind = content_type.partition(";")[0].strip().lower()
    query = _decoded(_without_duplicates(request.query_params.multi_items()))
    if kind == JSON:
        return Submission(accept(_merged(query, await read_json(request))))
    if kind == FORM:
        _check_head(request, most + _FORM_MARGIN)
        body = bounded(_arriving(request), most + _FORM_MARGIN, "The form")
        fields, image, filename = await _from_form(content_type, body, keep)
        return Submission(accept(_merged(query, _decoded(fields))), image, filename)
    if kind == "application/octet-stream" or kind.startswith("image/"):
        _check_head(request, most)
        return Submission(accept(query), await keep(_arriving(request)))
    raise InvalidRequest(f"The body's content type is none of {', '.join(MEDIA_TYPES)}.")


async def read_image(request: Request, most: int, keep: Keep) -> Source:
    """The body as an image; raises TooLarge, EmptyImage, InvalidRequest, DeadlineExceeded."""
    _check_head(request, most)
    return await keep(_arriving(request))


async def read_json(request: Request, most: int = _MOST_JSON_BYTES, large: str = "") -> dict[str, Any]:
    """The body as a JSON object, of at most so many bytes.

    Args:
        large: the member that they are meant for; the others have no more than another body may have, so that there
            are not thousands of them to be told what is wrong with each.

    Raises:
        InvalidRequest: it is no JSON object.
        TooLarge: it has more bytes.
    """
    _check_head(request, most)
    body = bytearray()
    async for chunk in bounded(_arriving(request), most, "The JSON"):
        body += chunk
    said = _json(bytes(body), "The body")
    if not isinstance(said, dict):
        raise InvalidRequest("The body is no JSON object.")
    rest = {name: value for name, value in said.items() if name != large}
    if len(body) > _MOST_JSON_BYTES and len(json.dumps(rest, ensure_ascii=False)) > _MOST_JSON_BYTES:
        raise too_large(_MOST_JSON_BYTES, f"The JSON beside `{large}`")
    return said


async def _from_form(content_type: str, body: AsyncIterator[bytes], keep: Keep) -> tuple[dict[str, str], Source, str]:
    fields: dict[str, str] = {}
    image, filename = None, ""
    async for part in parts(content_type, body):
        if part.filename is None and part.name in fields:
            raise InvalidRequest(f"The form has the field {part.name[:80]!r} twice.")
        if part.filename is None:
            fields[part.name] = await _text(part.chunks)
        elif image is not None:
            raise InvalidRequest("The form has more than one file: a request is of one image.")
        else:
            image, filename = await keep(part.chunks), part.filename
        if len(fields) > _MOST_FIELDS:
            raise InvalidRequest(f"The form has more than {_MOST_FIELDS} fields.")
    if image is None:
        raise InvalidRequest("The form has no file.")
    return fields, image, filename


async def _text(chunks: AsyncIterator[bytes]) -> str:
    data = bytearray()
    async for chunk in bounded(chunks, _MOST_JSON_BYTES, "A field"):
        data += chunk
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("A field of the form is no UTF-8.") from None


def _without_duplicates(items: Sequence[tuple[str, str]]) -> dict[str, str]:
    fields = dict(items)
    if len(fields) < len(items):
        raise InvalidRequest("The query string has a parameter twice.")
    return fields


def _merged(query: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    if twice := sorted(query.keys() & body.keys()):
        raise InvalidRequest(f"{twice[0][:80]!r} is in the query string and in the body: give it in one place.")
    return query | body


def _decoded(fields: Mapping[str, str]) -> dict[str, Any]:
    """Fields of text, those that have a structure as JSON."""
    return {name: _json(text, name) if name in _STRUCTURED else text for name, text in fields.items()}


def _json(text: str | bytes, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidRequest(f"{what} is no JSON.") from None


async def _arriving(request: Request) -> AsyncIterator[bytes]:
    try:
        async for chunk in within(request.stream(), _BODY_S):
            yield chunk
    except TooLate:
        raise DeadlineExceeded(f"The request's body was not complete after {_BODY_S:.0f} s.") from None


def _check_head(request: Request, most: int) -> None:
    """Refuse a body by what its head says of it, before it is sent."""
    coding = request.headers.get("content-encoding", "").strip()
    if coding.lower() not in ("", "identity"):
        raise InvalidRequest(f"The body is encoded ({coding[:80]}): send it without Content-Encoding.")
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > most:
        raise too_large(most, "The body")
