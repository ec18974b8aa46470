"""``POST /v1/takedowns``: everything that an image is in is removed, by the digest of its bytes."""

from __future__ import annotations

import logging
from typing import Annotated, Any, Final

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel

from producer.gateway.access import allowed
from producer.gateway.bodies import read_json
from producer.gateway.problems import answers
from producer.gateway.state import State, state_of
from producer.gateway.tokens import Token
from tasks.assets.takedown import Takedown
from tasks.audit import AuditEntry
from tasks.errors import CorruptSegment
from tasks.messages import Digest, Frozen, validated

__all__ = ["TakedownRequest", "router"]

logger = logging.getLogger(__name__)

router = APIRouter(tags=["assets"])


class TakedownRequest(Frozen):
    """The SHA-256 of an original's, or of a protected file's, bytes."""

    sha256: Digest


class TakenDown(BaseModel):
    collection: str
    asset_id: str


class TakedownDocument(BaseModel):
    """What was removed; of the collections that the token is good for."""

    removed: list[TakenDown]


_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/TakedownRequest"}}},
    }
}


@router.post(
    "/v1/takedowns",
    summary="Remove all assets whose original or protected file has these bytes",
    response_model=TakedownDocument,
    responses=answers(408, 413, 500),
    openapi_extra=_BODY,
)
async def take_down(request: Request, token: Annotated[Token, Depends(allowed("remove"))]) -> Response:
    said = validated(TakedownRequest, await read_json(request))
    document = await run_sync(_taken_down, state_of(request), token, said.sha256)
    return Response(document.model_dump_json(), media_type="application/json")


def _taken_down(state: State, token: Token, sha256: str) -> TakedownDocument:
    """Raises CorruptSegment when some assets could not be read; the others are removed then."""
    takedown, removed = Takedown(state.redis, state.store), []
    found = takedown.find(sha256)
    for name in found.assets:
        if token.covers(name.collection):
            takedown.remove(name)
            state.audit.add(AuditEntry(token.name, "takedown", name.collection, name.asset_id, detail=sha256))
            removed.append(TakenDown(collection=name.collection, asset_id=name.asset_id))
    if found.damage:  # whose it is, is not for every client to know
        logger.error("A takedown of %s may not be complete. %s", sha256, " ".join(found.damage))
        raise CorruptSegment(
            f"Assets removed: {len(removed)}. More may be of this image, as what is noted of it is damaged. The "
            "gateway's log, and `aii takedown`, say where."
        )
    return TakedownDocument(removed=removed)
