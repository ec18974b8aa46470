"""What the routes share, made when the application starts and closed when it stops."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request

from producer.client import Producer
from producer.gateway.fetch import Fetcher
from producer.gateway.uploads import GatewayStore
from tasks.app import Sender, create_app
from tasks.connection import RedisClient, connect_redis
from tasks.ledger.ledger import Ledger
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
    fetcher: Fetcher

    @classmethod
    def connect(cls, settings: Settings) -> State:
        """Raises InvalidSetting. Does not connect yet."""
        ledger = Ledger.connect(settings)
        public = settings.s3_public_endpoint
        reached = type(settings).model_validate(settings.model_dump() | {"s3_endpoint": public}) if public else settings
        store = GatewayStore.connect(settings)
        return cls(
            settings=settings,
            store=store,
            links=GatewayStore.connect(reached),
            redis=connect_redis(settings),
            ledger=ledger,
            producer=Producer(settings, store, ledger, Sender(create_app(settings), settings)),
            fetcher=Fetcher(settings),
        )

    async def close(self) -> None:
        await self.fetcher.close()
        self.producer.close()
        self.redis.close()


def state_of(request: Request) -> State:
    """The state of the application that a request is of."""
    state: State = request.app.state.shared
    return state
