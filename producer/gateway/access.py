"""Who asks, and whether they may: the bearer token of a request, its scope, its collections and its rate."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Final

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from limits import parse
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from producer.gateway.tokens import Scope, Token, Tokens
from tasks.errors import AccessDenied, RateLimited, Unauthenticated

__all__ = ["Rates", "allowed", "check_collection_of"]

_bearer: Final = HTTPBearer(auto_error=False, description="A token of `aii tokens add`.")


class Rates:
    """How often each token was used lately."""

    def __init__(self) -> None:
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def count(self, token: Token) -> None:
        """Count one request; raises RateLimited, and does not count it then."""
        if not token.rate:
            return
        rate = parse(token.rate)
        if self._limiter.hit(rate, token.name):
            return
        error = RateLimited(f"More than {token.rate} requests with the token {token.name}: wait, or have it raised.")
        wait_s = self._limiter.get_window_stats(rate, token.name).reset_time - time.time()
        error.retry_after_s = max(1, math.ceil(wait_s))
        raise error


def allowed(scope: Scope) -> Callable[..., Awaitable[Token]]:
    """A dependency that gives the token of a request, before its body is read.

    Raises, when it is called, Unauthenticated, RateLimited, or AccessDenied when the token lacks `scope`.
    """

    async def token_of(
        request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
    ) -> Token:
        tokens: Tokens = request.app.state.tokens
        rates: Rates = request.app.state.rates
        token = tokens.find(given.credentials) if given else None
        if token is None:
            raise Unauthenticated("A token is needed: Authorization: Bearer TOKEN. `aii tokens add` makes one.")
        rates.count(token)
        if not token.may(scope):
            raise AccessDenied(f"The token {token.name} lacks the scope {scope}.")
        return token

    return token_of


def check_collection_of(token: Token, collection: str) -> None:
    """Raise AccessDenied when a token is not good for a collection."""
    if not token.covers(collection):
        raise AccessDenied(f"The token {token.name} is not good for the collection {collection!r}.")
