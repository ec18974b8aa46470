"""``POST /v1/activations`` and ``POST /v1/queries``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import aclosing
from functools import partial
from typing import Annotated, Any, Final, TypeVar

from fastapi import APIRouter, Depends, Header, Request, Response
from pydantic import Field, TypeAdapter

from producer.gateway.access import allowed, check_collection_of
from producer.gateway.bodies import Submission, read_submission
from producer.gateway.jobs import JobDocument, Prefer, answer_of, wait_s_of
from producer.gateway.problems import answers
from producer.gateway.state import State, state_of
from producer.gateway.tokens import Token
from producer.images import object_named
from producer.requests import Activation
from producer.requests import Query as QueryOf
from tasks.errors import InvalidRequest
from tasks.messages import (
    ActivationOptions,
    AssetId,
    Frozen,
    Metadata,
    QueryOptions,
    S3Object,
    Source,
    validated,
)
from tasks.names import check_collection
from tasks.storage import Bucket

__all__ = ["router"]

router = APIRouter(tags=["submissions"])

_ADDRESS: Final = "`s3://BUCKET/KEY` or `https://…`, of an allowed bucket or host; in JSON only"
_Address = Annotated[
    str,
    Field(max_length=2_048, description="`s3://BUCKET/KEY` or `https://…`, of an allowed bucket or host; in JSON only"),
]


_Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        max_length=128,
        description="names the job instead of what is asked for: the same key of the same token is the same job",
    ),
]


class QueryParameters(Frozen):
    """Parameters of a query. `source` is for a request without an image of its own."""

    source: _Address | None = None
    collection: str | None = Field(default=None, description="default: AII_DEFAULT_COLLECTION")
    options: QueryOptions = QueryOptions()


class ActivationParameters(Frozen):
    """Parameters of an activation: those of `Producer.activate`."""

    source: _Address | None = None
    collection: str | None = Field(default=None, description="default: AII_DEFAULT_COLLECTION")
    asset_id: AssetId | None = Field(default=None, description="default: the sha256 of the image's bytes")
    name: str | None = Field(default=None, max_length=1_024, description="the file's own name; default: the form's")
    replace: bool = Field(default=False, description="take the place of another image of this asset id")
    again: bool = Field(default=False, description="make a new job, even if the same request was made before")
    options: ActivationOptions = ActivationOptions()
    meta: Metadata = Field(default_factory=dict)


P = TypeVar("P", QueryParameters, ActivationParameters)


def _body(model: type[Frozen]) -> dict[str, Any]:
    """A submission's body and parameters, for the OpenAPI document: the route reads them itself, as they arrive."""
    schema = TypeAdapter(model).json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    fields = {name: field for name, field in schema["properties"].items() if name != "source"}
    binary = {"type": "string", "format": "binary"}
    form = {"type": "object", "required": ["file"], "properties": {"file": binary, **fields}}
    by_reference = {**schema, "required": ["source"]}
    raw = {"schema": {**binary, "minLength": 1}}
    content = {
        "application/octet-stream": raw,
        "application/json": {"schema": by_reference},
        "multipart/form-data": {"schema": form, "encoding": {"options": _AS_JSON, "meta": _AS_JSON}},
    }
    parameters = [
        {"name": name, "in": "query", "required": False, "schema": field}
        for name, field in fields.items()
        if name not in ("options", "meta")
    ]
    return {"requestBody": {"required": True, "content": content}, "parameters": parameters}


_AS_JSON: Final = {"contentType": "application/json"}
_ANSWERS: Final[dict[int | str, dict[str, Any]]] = {
    202: {"model": JobDocument, "description": "Accepted; the job goes on."},
    **answers(404, 408, 409, 413),
}


@router.post(
    "/v1/activations",
    summary="Protect an image and register it",
    response_model=JobDocument,
    responses=_ANSWERS,
    openapi_extra=_body(ActivationParameters),
)
async def activate(
    request: Request, token: Annotated[Token, Depends(allowed("submit"))], prefer: Prefer = None, key: _Key = None
) -> Response:
    state = state_of(request)
    await state.admit(token)
    submission = await _received(
        state, request, Bucket.ORIGINALS, partial(_accepted, state, token, ActivationParameters)
    )
    said = submission.parameters
    source = await _source(state, Bucket.ORIGINALS, submission)
    wanted = Activation(
        source,
        collection=said.collection,
        asset_id=said.asset_id,
        options=said.options,
        meta=said.meta,
        again=said.again,
        name=said.name if said.name is not None else submission.filename or None,
        replace=said.replace,
        idempotency_key=_own_key(token, key),
    )
    job = await state.submit(token, wanted)
    return await answer_of(state, job, wait_s_of(prefer, state))


@router.post(
    "/v1/queries",
    summary="Find the registered image that this one is a copy of",
    response_model=JobDocument,
    responses=_ANSWERS,
    openapi_extra=_body(QueryParameters),
)
async def query(
    request: Request, token: Annotated[Token, Depends(allowed("query"))], prefer: Prefer = None, key: _Key = None
) -> Response:
    state = state_of(request)
    await state.admit(token)
    accept: Callable[[Mapping[str, Any]], QueryParameters] = partial(_accepted, state, token, QueryParameters)
    submission = await _received(state, request, Bucket.QUERIES, accept)
    said = submission.parameters
    source = await _source(state, Bucket.QUERIES, submission)
    wanted = QueryOf(source, collection=said.collection, options=said.options, idempotency_key=_own_key(token, key))
    job = await state.submit(token, wanted)
    return await answer_of(state, job, wait_s_of(prefer, state))


async def _received(
    state: State, request: Request, bucket: Bucket, accept: Callable[[Mapping[str, Any]], P]
) -> Submission[P]:
    most = state.settings.max_image_bytes
    return await read_submission(request, most, accept, partial(state.store.keep, bucket, most=most))


def _accepted(state: State, token: Token, model: type[P], said: Mapping[str, Any]) -> P:
    """The parameters of a request, with the collection that they mean; raises AccessDenied as well."""
    parameters = validated(model, said)
    collection = check_collection(parameters.collection or state.settings.default_collection)
    check_collection_of(token, collection)
    return parameters.model_copy(update={"collection": collection})


async def _source(state: State, bucket: Bucket, submission: Submission[P]) -> Source | S3Object:
    """The image that came with the request, or the one at its address."""
    address = submission.parameters.source
    if submission.image is not None:
        if address is not None:
            raise InvalidRequest("`source` is for a request without an image of its own.")
        return submission.image
    if address is None:
        raise InvalidRequest("The request has no image: give its address as `source`, or send it.")
    if found := object_named(address):
        if found.bucket not in state.settings.source_buckets:
            raise InvalidRequest(f"AII_SOURCE_BUCKETS does not name the bucket {found.bucket!r}.")
        return found
    async with aclosing(state.fetcher.read(address)) as chunks:
        return await state.store.keep(bucket, chunks, state.settings.max_image_bytes)


def _own_key(token: Token, key: str | None) -> str:
    """A client's key names its own jobs only: that of another client must not lead to its result, and that of a token
    that was removed and made again neither."""
    return f"{token.name}.{token.sha256[:16]}:{key}" if key else ""
