"""What the routes share, made when the application starts and closed when it stops."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from anyio.to_thread import run_sync
from fastapi import Request

from producer.client import Producer
from producer.gateway.fetch import Fetcher
from producer.gateway.quotas import Quotas
from producer.gateway.tokens import Token
from producer.gateway.uploads import GatewayStore
from producer.job import ActivationJob, Job, LookupJob, QueryJob
from producer.requests import Activation, Query
from tasks.app import Sender, create_app
from tasks.audit import Action, AuditEntry, AuditLog
from tasks.connection import RedisClient, connect_redis
from tasks.errors import AlreadyProtected
from tasks.ledger.ledger import Ledger
from tasks.messages import ActivateRequest, Source
from tasks.settings import Settings

__all__ = ["State", "state_of"]


@dataclass(frozen=True)
class State:
    """Connections and settings. `links` signs links as clients reach S3."""

    settings: Settings
    store: GatewayStore
    links: GatewayStore
    redis: RedisClient
    ledger: Ledger
    producer: Producer
    quotas: Quotas
    audit: AuditLog
    fetcher: Fetcher

    @classmethod
    def connect(cls, settings: Settings) -> State:
        """Raises InvalidSetting. Does not connect yet."""
        ledger = Ledger.connect(settings)
        public = settings.s3_public_endpoint
        reached = type(settings).model_validate(settings.model_dump() | {"s3_endpoint": public}) if public else settings
        store, redis = GatewayStore.connect(settings), connect_redis(settings)
        return cls(
            settings=settings,
            store=store,
            links=GatewayStore.connect(reached),
            redis=redis,
            ledger=ledger,
            producer=Producer(settings, store, ledger, Sender(create_app(settings), settings)),
            quotas=Quotas(redis, ledger),
            audit=AuditLog(redis, settings),
            fetcher=Fetcher(settings),
        )

    async def admit(self, token: Token) -> None:
        """Raise RateLimited when a token has as many open jobs as it may have: before a body is read."""
        if token.open_jobs:
            await run_sync(self.quotas.check, token)

    async def submit(self, token: Token, wanted: Activation | Query) -> Job:
        """Accept a token's request; errors as in :meth:`Producer.submit`."""
        return await run_sync(self._submit, token, wanted)

    def _submit(self, token: Token, wanted: Activation | Query) -> Job:
        try:
            job = self.producer.on_behalf_of(token.name).submit(wanted)
        except AlreadyProtected:
            if not token.collections:
                raise
            raise AlreadyProtected("It is a protected file already.") from None  # whose, is not this client's to know
        return self._counted(token, job)

    async def look_up(self, token: Token, vectors: Any, said: Mapping[str, Any]) -> Job:
        """Accept a token's look-up of vectors; arguments and errors as in :meth:`Producer.query_vectors`."""
        return await run_sync(self._look_up, token, vectors, said)

    def _look_up(self, token: Token, vectors: Any, said: Mapping[str, Any]) -> Job:
        return self._counted(token, self.producer.on_behalf_of(token.name).query_vectors(vectors, **said))

    def _counted(self, token: Token, job: ActivationJob | QueryJob | LookupJob) -> Job:
        if job.new:
            self.quotas.count(token, job.job_id)
        asked = job.request
        source = asked.source.sha256 if isinstance(asked.source, Source) else asked.source.url
        action: Action = "activate" if isinstance(asked, ActivateRequest) else "query"
        asset = getattr(asked, "asset_id", "") or ""
        self.audit.add(AuditEntry(token.name, action, asked.collection, asset, job.job_id, source))
        return job

    async def close(self) -> None:
        await self.fetcher.close()
        self.producer.close()
        self.redis.close()


def state_of(request: Request) -> State:
    """The state of the application that a request is of."""
    state: State = request.app.state.shared
    return state
