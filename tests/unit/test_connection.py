"""Whatever a client of Redis is asked for, an unreachable Redis has one name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pydantic import SecretStr

from tasks.connection import RedisClient, connect_redis
from tasks.errors import RedisUnavailable
from tasks.settings import Settings


def _script_in_pipeline(client: RedisClient) -> object:
    pipe = client.pipeline()
    client.register_script("return 1")(client=pipe)
    return pipe.execute()


USES: dict[str, Callable[[RedisClient], object]] = {
    "command": lambda client: client.get("key"),
    "script": lambda client: client.register_script("return 1")(),
    "pipeline": lambda client: client.pipeline().get("key").execute(),
    "script in a pipeline": _script_in_pipeline,
    "watched pipeline": lambda client: client.pipeline().watch("key"),
    "lock": lambda client: client.lock("key", timeout=1, blocking=False).acquire(),
    "scan": lambda client: list(client.hscan_iter("key")),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
def test_every_use_names_the_address_and_never_the_password(use: Callable[[RedisClient], object]) -> None:
    settings = Settings(redis_url=SecretStr("redis://:secret@127.0.0.1:1/0"))
    named = pytest.raises(RedisUnavailable, match=r"Redis at 127\.0\.0\.1:1 does not answer")
    with connect_redis(settings) as client, named as caught:
        use(client)
    assert "secret" not in caught.value.message
