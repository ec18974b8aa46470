"""Errors as problem documents (RFC 9457) with the codes of :mod:`tasks.errors`."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from tasks.errors import (
    AccessDenied,
    AiiError,
    BadInput,
    Conflict,
    DeadlineExceeded,
    InvalidRequest,
    NotFound,
    Poison,
    RateLimited,
    TooLarge,
    Unauthenticated,
    Unavailable,
    UnsupportedFormat,
)

__all__ = ["Problem", "answers", "install", "problem_of", "status_of"]

logger = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"
_RETRY_AFTER_S: Final = "5"
# The first class that an error is of decides.
_STATUSES: Final = (
    (TooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (UnsupportedFormat, HTTPStatus.UNSUPPORTED_MEDIA_TYPE),
    (BadInput, HTTPStatus.BAD_REQUEST),
    (Poison, HTTPStatus.BAD_REQUEST),
    (NotFound, HTTPStatus.NOT_FOUND),
    (Conflict, HTTPStatus.CONFLICT),
    (Unauthenticated, HTTPStatus.UNAUTHORIZED),
    (RateLimited, HTTPStatus.TOO_MANY_REQUESTS),
    (AccessDenied, HTTPStatus.FORBIDDEN),
    (DeadlineExceeded, HTTPStatus.REQUEST_TIMEOUT),
    (Unavailable, HTTPStatus.SERVICE_UNAVAILABLE),
)
# What the framework itself refuses: the code that says it best.
_CODES: Final = {404: NotFound.code, 413: TooLarge.code}


class Problem(BaseModel):
    """What went wrong; `code` is stable, and `type` leads to what it means and what to do."""

    type: str = Field(description="path of a page about the code")
    title: str
    status: int
    detail: str
    code: str
    retryable: bool = Field(description="whether the same request may succeed later")


def answers(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problem answers of a route, for the OpenAPI document. Every route that needs a token has the first ones."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": content}
        for status in (400, 401, 403, 429, 503, *statuses)
    }


def status_of(error: AiiError) -> HTTPStatus:
    """The HTTP status of an error."""
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), HTTPStatus.INTERNAL_SERVER_ERROR)


def problem_of(error: AiiError) -> Problem:
    """An error as a problem document."""
    return _problem(status_of(error), error.code, error.message, error.retryable)


def _problem(status: int, code: str, detail: str, retryable: bool = False) -> Problem:
    title = HTTPStatus(status).phrase
    return Problem(type=f"/v1/errors/{code}", title=title, status=status, detail=detail, code=code, retryable=retryable)


def install(app: FastAPI) -> None:
    """Make every error of the application a problem document; what was not expected says nothing of the inside."""
    app.add_exception_handler(AiiError, _of_ours)
    app.add_exception_handler(RequestValidationError, _of_parameters)
    app.add_exception_handler(HTTPException, _of_framework)
    app.add_exception_handler(ClientDisconnect, _of_disconnect)
    app.add_exception_handler(Exception, _unexpected)


async def _of_ours(_: Request, error: Exception) -> Response:
    assert isinstance(error, AiiError)
    headers = {}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    if error.retryable:
        headers["Retry-After"] = str(getattr(error, "retry_after_s", _RETRY_AFTER_S))
    return _answer(problem_of(error), headers)


async def _of_parameters(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    detail = "; ".join(f"{'.'.join(map(str, e['loc'][1:]))}: {e['msg']}" for e in error.errors()[:5])
    return _answer(problem_of(InvalidRequest(f"The request cannot be used: {detail}.")))


async def _of_framework(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _CODES.get(error.status_code, InvalidRequest.code)
    return _answer(_problem(error.status_code, code, str(error.detail)), dict(error.headers or {}))


async def _of_disconnect(_: Request, error: Exception) -> Response:
    return _answer(problem_of(InvalidRequest("The client closed the connection before the body was complete.")))


async def _unexpected(request: Request, error: Exception) -> Response:
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return _answer(problem_of(AiiError("This is a bug; the gateway's log has its cause.")))


def _answer(problem: Problem, headers: dict[str, str] | None = None) -> Response:
    return Response(problem.model_dump_json(), problem.status, headers, MEDIA_TYPE)
