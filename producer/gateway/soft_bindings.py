"""C2PA's Soft Binding Resolution API: which manifest a copy had that lost its own.

The paths below ``/v1``, their parameters and their answers are those of its OpenAPI document (version 1.0), which C2PA
publishes; `collection` is ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Annotated, Any, Final

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi import Query as QueryParameter
from pydantic import BaseModel, ConfigDict, Field

from producer.gateway.access import allowed, check_collection_of
from producer.gateway.bodies import read_image, read_json
from producer.gateway.problems import answers
from producer.gateway.state import State, state_of
from producer.gateway.tokens import Token
from producer.requests import Query
from tasks.assets.journal import AssetJournal
from tasks.assets.manifest_store import active_only
from tasks.assets.manifests import ALGORITHM, ManifestNote, Manifests
from tasks.assets.records import AssetRecords, look_up
from tasks.assets.removals import Removals
from tasks.audit import AuditEntry
from tasks.documents import read_result
from tasks.errors import DeadlineExceeded, InvalidRequest, NotFound, ObjectMissing, UnsupportedFormat, error_of
from tasks.ledger.waiting import closing
from tasks.messages import Frozen, QueryOptions, validated
from tasks.names import check_collection
from tasks.results import ActivationResult, FailureResult, KeptManifest, Match, QueryResult
from tasks.storage import Bucket

__all__ = ["router"]

router = APIRouter(tags=["C2PA soft binding resolution"])

_MOST_RESULTS: Final = 100
_LONGEST_VALUE: Final = 4_096
_MEDIA_TYPE: Final = "application/c2pa"
# The verdicts, which are of the first match, under which it is one; and the probability from which on others are.
_FOUND: Final = ("match", "possible")
_AS_GOOD: Final = 0.5

_Algorithm = Annotated[str, QueryParameter(max_length=256, description="name of a soft binding algorithm")]
_Most = Annotated[int, QueryParameter(alias="maxResults", ge=1, le=_MOST_RESULTS, description="manifests at most")]
_Collection = Annotated[str | None, QueryParameter(description="default: AII_DEFAULT_COLLECTION")]


class SupportedAlgorithm(BaseModel):
    alg: str


class SupportedAlgorithms(BaseModel):
    """Algorithms whose values, or whose images, can be asked for."""

    watermarks: list[SupportedAlgorithm] = []
    fingerprints: list[SupportedAlgorithm] = [SupportedAlgorithm(alg=ALGORITHM)]


class ManifestMatch(BaseModel):
    model_config = ConfigDict(serialize_by_alias=True)

    manifest_id: str = Field(serialization_alias="manifestId")
    similarity_score: int | None = Field(default=None, ge=0, le=100, serialization_alias="similarityScore")


class ManifestMatches(BaseModel):
    """Manifests, the best one first."""

    matches: list[ManifestMatch]


class Binding(Frozen):
    """A soft binding; `value` is base64, as in the assertion `c2pa.soft-binding`."""

    alg: str = Field(max_length=256)
    value: str = Field(max_length=_LONGEST_VALUE)


_IMAGE: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {"image/*": {"schema": {"type": "string", "format": "binary", "minLength": 1}}},
    }
}
_BINDING: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Binding"}}},
    }
}


@router.get("/v1/services/supportedAlgorithms", summary="Soft binding algorithms", response_model=SupportedAlgorithms)
async def supported_algorithms() -> SupportedAlgorithms:
    return SupportedAlgorithms()


@router.get(
    "/v1/matches/byBinding",
    summary="The manifests of assets with a soft binding",
    response_model=ManifestMatches,
    responses=answers(),
)
async def by_binding(
    request: Request,
    token: Annotated[Token, Depends(allowed("query"))],
    alg: _Algorithm,
    value: Annotated[str, QueryParameter(max_length=_LONGEST_VALUE, description="of the binding, in base64")],
    most: _Most = 10,
) -> Response:
    return await _bound(request, token, Binding(alg=alg, value=value), most)


@router.post(
    "/v1/matches/byBinding",
    summary="The same, for long values",
    response_model=ManifestMatches,
    responses=answers(413),
    openapi_extra=_BINDING,
)
async def by_long_binding(
    request: Request, token: Annotated[Token, Depends(allowed("query"))], most: _Most = 10
) -> Response:
    return await _bound(request, token, validated(Binding, await read_json(request)), most)


@router.post(
    "/v1/matches/byContent",
    summary="The manifests of the assets that an image is a copy of",
    response_model=ManifestMatches,
    responses=answers(404, 408, 409, 413, 415),
    openapi_extra=_IMAGE,
)
async def by_content(
    request: Request,
    token: Annotated[Token, Depends(allowed("query"))],
    alg: _Algorithm = ALGORITHM,
    most: _Most = 10,
    collection: _Collection = None,
) -> Response:
    """The image is queried. `hintAlg` and `hintValue` are not used."""
    state = state_of(request)
    name = check_collection(collection or state.settings.default_collection)
    check_collection_of(token, name)
    _check_algorithm(alg)
    if not request.headers.get("content-type", "").lower().startswith(("image/", "application/octet-stream")):
        raise UnsupportedFormat("Only images can be asked for: their content type is image/….")
    await state.admit(token)
    limit = state.settings.max_image_bytes
    source = await read_image(request, limit, partial(state.store.keep, Bucket.QUERIES, most=limit))
    wanted = Query(source, collection=name, options=QueryOptions(top_k=most))
    answer = await _answered(state, token, wanted)
    found = [match for match in answer.matches[1:] if (match.probability or 0) >= _AS_GOOD]
    found = [*answer.matches[:1], *found] if answer.verdict in _FOUND else []
    return _answer(await run_sync(lambda: list(_of_matches(state, name, found))))


@router.get(
    "/v1/manifests/{manifest_id}",
    summary="A manifest store",
    response_class=Response,
    responses={200: {"content": {_MEDIA_TYPE: {}}}, **answers(404)},
)
async def manifest(
    request: Request,
    token: Annotated[Token, Depends(allowed("query"))],
    manifest_id: Annotated[str, Path(min_length=1, max_length=256)],
    active: Annotated[bool, QueryParameter(alias="returnActiveManifest", description="that manifest alone")] = False,
) -> Response:
    store = await run_sync(_store_of, state_of(request), token, manifest_id)
    headers = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'"}
    return Response(active_only(store) if active else store, headers=headers, media_type=_MEDIA_TYPE)


def _store_of(state: State, token: Token, manifest_id: str) -> bytes:
    """The same for a manifest that there is not and for one of another's collection."""
    missing, manifests = NotFound(f"No manifest {manifest_id!r} is kept."), Manifests(state.store)
    try:
        note = manifests.named(manifest_id)
        if not token.covers(note.collection):
            raise missing
        store = manifests.bytes_of(note)
    except (NotFound, ObjectMissing):
        raise missing from None
    state.audit.add(AuditEntry(token.name, "show", note.collection, note.asset_id, detail=manifest_id))
    return store


async def _bound(request: Request, token: Token, binding: Binding, most: int) -> Response:
    _check_algorithm(binding.alg)
    notes = Manifests(state_of(request).store).bound(binding.value)
    return _answer(await run_sync(lambda: list(islice(_covered(token, notes), most))))


def _covered(token: Token, notes: Iterable[ManifestNote]) -> Iterator[ManifestMatch]:
    return (ManifestMatch(manifest_id=note.manifest_id) for note in notes if token.covers(note.collection))


def _check_algorithm(alg: str) -> None:
    if alg != ALGORITHM:
        raise InvalidRequest(f"The algorithm {alg!r} is none of this service: ask for {ALGORITHM}.")


async def _answered(state: State, token: Token, wanted: Query) -> QueryResult:
    """The answer to a query; raises its failure, or DeadlineExceeded."""
    job = await state.submit(token, wanted)
    ended = await closing(state.ledger, job.job_id, state.settings.gateway_max_wait_s)
    if ended is None:
        raise DeadlineExceeded("The image was not queried in time: the workers are busy. Ask again.")
    result = await run_sync(state.producer.ended, ended)
    if isinstance(result, FailureResult):
        raise error_of(result.code, result.message)
    assert isinstance(result, QueryResult)
    return result


def _of_matches(state: State, collection: str, found: Iterable[Match]) -> Iterator[ManifestMatch]:
    """Of those whose asset has a manifest that is kept under its own name."""
    manifests, journal = Manifests(state.store), AssetJournal(state.redis, collection)
    records, removals = AssetRecords(state.store, collection), Removals(state.store, collection)
    for match in found:
        asset = look_up(journal, records, removals, match.asset_id).state
        if asset is None or not asset.job_id:
            continue
        try:
            kept = _kept(state, asset.job_id)
            if kept and manifests.named(kept.manifest_id).sha256 == kept.sha256:
                yield ManifestMatch(manifest_id=kept.manifest_id, similarity_score=_percent(match))
        except NotFound:
            continue


def _kept(state: State, job_id: str) -> KeptManifest | None:
    result = read_result(state.store, job_id)
    return result.manifest if isinstance(result, ActivationResult) else None


def _percent(match: Match) -> int | None:
    return None if match.probability is None else round(100 * match.probability)


def _answer(found: list[ManifestMatch]) -> Response:
    text = ManifestMatches(matches=found).model_dump_json(exclude_none=True)
    return Response(text, media_type="application/json")
