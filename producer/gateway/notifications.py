"""``POST /v1/notifications``: S3 tells of new objects by webhook; ``aii ingest`` submits them."""

from __future__ import annotations

import json
from typing import Annotated, Any, Final

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Request, Response

from producer.gateway.access import allowed
from producer.gateway.bodies import read_json
from producer.gateway.problems import answers
from producer.gateway.state import State, state_of
from producer.gateway.tokens import Token
from producer.ingest.notifications import Notifications, list_key, uploads
from tasks.errors import AccessDenied, InvalidRequest

__all__ = ["router"]

router = APIRouter(tags=["notifications"])

_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"type": "object"}}},
        "description": "a notification as MinIO and AWS post it",
    }
}


@router.post(
    "/v1/notifications",
    summary="S3 tells of new objects",
    status_code=204,
    response_model=None,
    responses=answers(413),
    openapi_extra=_BODY,
)
async def notified(request: Request, token: Annotated[Token, Depends(allowed("submit"))]) -> Response:
    if token.collections:
        raise AccessDenied(f"The token {token.name} is good for some collections only: objects may go into any.")
    state = state_of(request)
    said = await read_json(request)
    try:
        buckets = {one.bucket for one in uploads(json.dumps(said))}
    except ValueError as error:
        raise InvalidRequest(f"The body is no notification of S3: {error}.") from None
    if unknown := buckets - set(state.settings.source_buckets):
        raise InvalidRequest(f"AII_SOURCE_BUCKETS does not name {sorted(unknown)[0][:63]!r}.")
    await run_sync(_keep, state, buckets, json.dumps(said))
    return Response(status_code=204)


def _keep(state: State, buckets: set[str], text: str) -> None:
    for bucket in buckets:
        Notifications(state.redis, list_key(bucket)).append(text)
