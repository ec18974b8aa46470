"""Bearer tokens of the gateway. Only their digests are kept: in a file, or in a setting.

A token is 256 random bits, so a plain digest does not help to find it.
"""

from __future__ import annotations

import datetime
import fcntl
import hmac
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import Field, TypeAdapter, ValidationError, field_validator

from tasks.errors import Conflict, InvalidSetting, NotFound
from tasks.files import write_atomically
from tasks.messages import Digest, Frozen
from tasks.names import COLLECTION_PATTERN, sha256_hex
from tasks.settings import Settings
from tasks.state_folder import state_dir

__all__ = ["SCOPES", "Scope", "Token", "TokenFile", "Tokens", "token_file"]

Scope = Literal["submit", "query", "remove", "admin"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
_PREFIX: Final = "aii_"


class Token(Frozen):
    """What the bearer of a token may do.

    Attributes:
        sha256: of the token, as hex digits.
        scopes: `admin` includes the others.
        collections: those it is good for; empty for all.
        rate: requests that are answered, such as `100/second` or `6000/minute`; "" for any number. Each gateway process
            counts for itself.
        open_jobs: jobs that may be open at a time, of all gateways; 0 for any number.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    sha256: Digest
    scopes: frozenset[Scope]
    collections: frozenset[Annotated[str, Field(pattern=COLLECTION_PATTERN)]] = frozenset()
    rate: str = ""
    open_jobs: int = Field(default=0, ge=0)
    created_at: str = ""

    @field_validator("rate")
    @classmethod
    def _rate(cls, value: str) -> str:
        if value:
            from limits import parse  # noqa: PLC0415  # of the extra; `aii --help` does without

            parse(value)  # raises ValueError
        return value

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes or "admin" in self.scopes

    def covers(self, collection: str | None) -> bool:
        """Whether the token is good for a collection; for one that is not known only a token without limits is."""
        return not self.collections or collection in self.collections


_LIST: Final = TypeAdapter(list[Token])


def token_file(settings: Settings) -> Path:
    """Where the tokens are kept."""
    return Path(settings.gateway_token_file) if settings.gateway_token_file else state_dir() / "tokens.json"


class TokenFile:
    """The file of tokens: a JSON list, readable by its owner only. Safe for several processes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Token]:
        """All tokens; none when there is no file. Raises InvalidSetting when it cannot be used."""
        try:
            return _parsed(self.path.read_bytes(), str(self.path))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise InvalidSetting(f"{self.path} cannot be read: {error.strerror}.") from error

    def add(self, name: str, scopes: Sequence[Scope], **limits: Any) -> str:
        """Make a token and return it: it is shown only here.

        Args:
            limits: collections, rate and open_jobs, as in :class:`Token`.

        Raises:
            Conflict: the name is taken.
            InvalidSetting: a name or a limit cannot be used.
        """
        secret = _PREFIX + secrets.token_urlsafe(32)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        fields = {"name": name, "sha256": sha256_hex(secret.encode()), "scopes": scopes, "created_at": now}
        try:
            token = Token.model_validate(fields | limits)
        except ValidationError as error:
            raise InvalidSetting("; ".join(f"{e['loc'][0]}: {e['msg']}" for e in error.errors())) from None
        with self._changing() as tokens:
            if any(other.name == name for other in tokens):
                raise Conflict(f"There is a token {name} already: remove it first, or choose another name.")
            tokens.append(token)
        return secret

    def remove(self, name: str) -> None:
        """Forget a token, which is refused from then on; raises NotFound."""
        with self._changing() as tokens:
            kept = [token for token in tokens if token.name != name]
            if len(kept) == len(tokens):
                raise NotFound(f"There is no token {name}: `aii tokens list` names them.")
            tokens[:] = kept

    def version(self) -> tuple[int, int]:
        """Changes whenever the file does."""
        try:
            status = self.path.stat()
        except OSError:
            return 0, 0
        return status.st_mtime_ns, status.st_ino

    @contextmanager
    def _changing(self) -> Iterator[list[Token]]:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self.path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            tokens = self.read()
            yield tokens
            write_atomically(self.path, _LIST.dump_json(tokens, indent=2) + b"\n", mode=0o600)
        finally:
            os.close(lock)


class Tokens:
    """All tokens that are good now: the file is read again when it has changed. Thread-safe.

    Raises:
        InvalidSetting: the setting or the file cannot be used. A file that is damaged later changes nothing.
    """

    def __init__(self, settings: Settings) -> None:
        text = settings.gateway_tokens
        self._fixed = _parsed(text.encode(), "AII_GATEWAY_TOKENS") if text else []
        self._file = TokenFile(token_file(settings))
        self._version = self._file.version()
        self._of_file = self._file.read()

    def find(self, secret: str) -> Token | None:
        """The token with this secret. Every digest is compared, and each in constant time."""
        digest, found = sha256_hex(secret.encode()), None
        for token in self.all():
            if hmac.compare_digest(token.sha256, digest):
                found = token
        return found

    def all(self) -> list[Token]:
        version = self._file.version()
        if version != self._version:
            with suppress(InvalidSetting):  # the tokens that were good stay so
                self._of_file = self._file.read()
            self._version = version
        return [*self._fixed, *self._of_file]


def _parsed(data: bytes, where: str) -> list[Token]:
    try:
        return _LIST.validate_json(data)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        raise InvalidSetting(f"{where} is no list of tokens ({place}: {problem['msg']}): see `aii tokens`.") from None
