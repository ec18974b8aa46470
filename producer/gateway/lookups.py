"""``POST /v1/lookups``: feature vectors that the client extracted itself."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request, Response
from pydantic import FailFast, Field

from producer.gateway.access import allowed, check_collection_of
from producer.gateway.bodies import read_json
from producer.gateway.jobs import JobDocument, Prefer, answer_of, wait_s_of
from producer.gateway.problems import answers
from producer.gateway.state import state_of
from producer.gateway.tokens import Token
from tasks.messages import MOST_VECTORS, Digest, Frozen, QueryOptions, validated
from tasks.names import check_collection

__all__ = ["LookupParameters", "router"]

router = APIRouter(tags=["submissions"])

_MOST_BYTES: Final = 4 * 2**20  # some four hundred vectors of 512 values, each written with all its digits
_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/LookupParameters"}}},
    }
}


class LookupParameters(Frozen):
    """Vectors of unit length, as the collection's extractor gives them, and what is asked about each."""

    # Fails at the first value that is no number: pydantic would make an error of each of a million.
    vectors: Annotated[list[Annotated[list[float], Field(min_length=1), FailFast()]], FailFast()] = Field(
        min_length=1, max_length=MOST_VECTORS
    )
    collection: str | None = Field(default=None, description="default: AII_DEFAULT_COLLECTION")
    extractor: Digest | None = Field(
        default=None, description="that made them; refused where it is not the collection's"
    )
    options: QueryOptions = QueryOptions()


@router.post(
    "/v1/lookups",
    summary="Find what is registered near feature vectors",
    response_model=JobDocument,
    responses={
        202: {"model": JobDocument, "description": "Accepted; the job goes on."},
        **answers(404, 408, 409, 413),
    },
    openapi_extra=_BODY,
)
async def look_up(
    request: Request, token: Annotated[Token, Depends(allowed("query"))], prefer: Prefer = None
) -> Response:
    state = state_of(request)
    await state.admit(token)
    said = validated(LookupParameters, await read_json(request, _MOST_BYTES, large="vectors"))
    collection = check_collection(said.collection or state.settings.default_collection)
    check_collection_of(token, collection)
    asked = {"collection": collection, "options": said.options, "extractor": said.extractor}
    job = await state.look_up(token, said.vectors, asked)
    return await answer_of(state, job, wait_s_of(prefer, state))
