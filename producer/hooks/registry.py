"""The hooks, as Redis keeps them.

aii:hooks   hash: id → JSON: url, secret, states, created_at. While there is none, workers write no outbox.

An unreadable record is noted as a dead letter, and passed over.
"""

from __future__ import annotations

import base64
import datetime
import logging
import secrets
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_serializer, field_validator

from tasks.connection import RedisClient
from tasks.errors import InvalidRequest, NotFound
from tasks.ledger.dead_letters import DeadLetters
from tasks.ledger.states import JobState
from tasks.messages import Frozen

__all__ = ["HOOKS", "Hook", "Hooks", "pending_key"]

logger = logging.getLogger(__name__)

HOOKS: Final = "aii:hooks"
_SECRET_BYTES: Final = 32
_AT_ONCE: Final = 1_000


def pending_key(hook_id: str) -> str:
    """The sorted set of what a hook's receiver has not taken yet, see :mod:`producer.hooks.deliveries`."""
    return f"aii:hooks:pending:{hook_id}"


class Hook(Frozen):
    """Where ends of jobs are sent.

    Attributes:
        secret: `whsec_` and base64, with which every message is signed.
        states: of which ends; empty for all.
    """

    hook_id: str = Field(pattern=r"^[0-9a-f]{8}$")
    url: str = Field(max_length=2_048)
    secret: SecretStr
    states: frozenset[JobState] = frozenset()
    created_at: str = ""

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("it is no http:// or https:// URL")
        return value

    @field_serializer("secret")
    def _kept(self, value: SecretStr) -> str:
        return value.get_secret_value()

    @property
    def shown_url(self) -> str:
        """The URL without a login in it."""
        parts = urlsplit(self.url)
        login, _, host = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"***@{host}").geturl() if login else self.url

    def wants(self, state: str) -> bool:
        return not self.states or state in self.states


class Hooks:
    """Thread-safe; raises RedisUnavailable."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._dead = DeadLetters(client, "aii hooks")

    def all(self) -> list[Hook]:
        """All hooks, oldest first."""
        found = (self._read(hook_id, text) for hook_id, text in self._client.hgetall(HOOKS).items())
        return sorted((hook for hook in found if hook), key=lambda hook: hook.created_at)

    def _read(self, hook_id: str, text: str) -> Hook | None:
        try:
            hook = Hook.model_validate_json(text)
        except ValueError:
            hook = None
        if hook and hook.hook_id == hook_id:
            return hook
        # Its content is not kept there: it may hold a secret.
        if self._dead.add("hooks", f"the hook {hook_id!r} cannot be read", b"", once=f"hook:{hook_id!r}"):
            logger.warning("The hook %r cannot be read, and receives nothing: remove it", hook_id)
        return None

    def add(self, url: str, states: Sequence[JobState]) -> Hook:
        """Make a hook, with a secret of its own; raises InvalidRequest for a URL that cannot be used."""
        secret = "whsec_" + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        try:
            hook = Hook(
                hook_id=secrets.token_hex(4),
                url=url,
                secret=SecretStr(secret),
                states=frozenset(states),
                created_at=now,
            )
        except ValidationError as error:
            raise InvalidRequest(f"The hook's URL cannot be used: {error.errors()[0]['msg']}.") from None
        self._client.hset(HOOKS, hook.hook_id, hook.model_dump_json())
        return hook

    def remove(self, hook_id: str) -> None:
        """Forget a hook; what is not delivered to it yet is not delivered any more. Raises NotFound."""
        known = self._client.hdel(HOOKS, hook_id)
        while pending := self._client.zpopmin(pending_key(hook_id), _AT_ONCE):
            self._client.delete(*(f"aii:hooks:delivery:{delivery_id}" for delivery_id, _ in pending))
        if not known:
            raise NotFound(f"There is no hook {hook_id}: `aii hooks list` names them.")
