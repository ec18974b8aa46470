"""``GET`` and ``DELETE /v1/assets/{id}``: the current state of an asset, and its removal."""

from __future__ import annotations

import datetime
from typing import Annotated

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, Field

from producer.gateway.access import allowed, check_collection_of
from producer.gateway.problems import answers
from producer.gateway.state import State, state_of
from producer.gateway.tokens import Token
from tasks.assets.journal import AssetJournal
from tasks.assets.records import AssetRecords, look_up, remove
from tasks.assets.removals import Removals
from tasks.audit import Action, AuditEntry
from tasks.errors import AssetMissing
from tasks.ledger.commits import AssetState
from tasks.names import LONGEST_ASSET_ID, check_asset_id, check_collection
from tasks.storage import Bucket

__all__ = ["AssetDocument", "router"]

router = APIRouter(tags=["assets"])

_Id = Annotated[str, Path(min_length=1, max_length=LONGEST_ASSET_ID, description="the asset id, percent-encoded")]
_Collection = Annotated[str | None, Query(description="default: AII_DEFAULT_COLLECTION")]


class AssetDocument(BaseModel):
    """An asset's current state. `protected_url` can be read by anyone who has it, until `expires_at`."""

    asset_id: str
    collection: str
    job_id: str = Field(description="the job that made this state; empty where that is unknown")
    source_sha256: str
    protected_sha256: str
    protected_url: str
    expires_at: datetime.datetime


@router.get(
    "/v1/assets/{asset_id:path}",
    summary="An asset, with a link to its protected file",
    response_model=AssetDocument,
    responses=answers(404),
)
async def show_asset(
    request: Request, asset_id: _Id, token: Annotated[Token, Depends(allowed("query"))], collection: _Collection = None
) -> Response:
    state = state_of(request)
    place = _Place(state, token, collection, asset_id)
    found = await run_sync(place.current)
    valid_s = state.settings.gateway_link_s
    document = AssetDocument(
        asset_id=place.asset_id,
        collection=place.collection,
        job_id=found.job_id,
        source_sha256=found.source_sha256,
        protected_sha256=found.protected_sha256,
        protected_url=state.links.link(Bucket.PROTECTED, found.protected_key, valid_s),
        expires_at=datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=valid_s),
    )
    return Response(document.model_dump_json(), media_type="application/json", headers={"Cache-Control": "no-store"})


@router.delete(
    "/v1/assets/{asset_id:path}",
    summary="Remove an asset: from the next query on, it is not found",
    status_code=204,
    response_model=None,
    responses=answers(404),
)
async def remove_asset(
    request: Request, asset_id: _Id, token: Annotated[Token, Depends(allowed("remove"))], collection: _Collection = None
) -> Response:
    place = _Place(state_of(request), token, collection, asset_id)
    await run_sync(place.remove)
    return Response(status_code=204)


class _Place:
    """One asset of one collection, as a token may reach it; raises for names that cannot be used, and AccessDenied."""

    def __init__(self, state: State, token: Token, collection: str | None, asset_id: str) -> None:
        self.collection = check_collection(collection or state.settings.default_collection)
        self.asset_id = check_asset_id(asset_id)
        check_collection_of(token, self.collection)
        self._audit, self._who = state.audit, token.name
        self._journal = AssetJournal(state.redis, self.collection)
        self._records = AssetRecords(state.store, self.collection)
        self._removals = Removals(state.store, self.collection)

    def current(self) -> AssetState:
        """The asset's current state; raises AssetMissing when it is not registered, or its file is unknown."""
        found = look_up(self._journal, self._records, self._removals, self.asset_id).state
        if found is None or not found.protected_key:
            raise AssetMissing(
                f"The collection {self.collection} has no asset {self.asset_id!r} with a protected file."
            )
        self._note("show", found.job_id)
        return found

    def remove(self) -> None:
        """Remove it; raises AssetMissing when it is not registered."""
        if look_up(self._journal, self._records, self._removals, self.asset_id).state is None:
            raise AssetMissing(f"The collection {self.collection} has no asset {self.asset_id!r}.")
        remove(self._journal, self._records, self._removals, self.asset_id)
        self._note("remove")

    def _note(self, action: Action, job_id: str = "") -> None:
        self._audit.add(AuditEntry(self._who, action, self.collection, self.asset_id, job_id))
