"""Where the keys of S3 come from: settings, the role that this process runs as, or a token that is exchanged for keys.

Those of a role or a token are temporary. The `minio` package fetches and renews them, and its providers serve its own
client and obstore alike.
"""

from __future__ import annotations

import datetime
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from tasks.errors import InvalidSetting, StorageUnavailable
from tasks.settings import Settings

if TYPE_CHECKING:
    from minio.credentials.credentials import Credentials
    from minio.credentials.providers import Provider
    from obstore.store import S3Credential

__all__ = ["credential_provider", "minio_provider", "signs_requests"]

# Before they expire: a request that was signed in time must also arrive in time.
_EARLIER: Final = datetime.timedelta(minutes=1)
_VALID_S: Final = 3600
_SESSION: Final = "aii"


def signs_requests(settings: Settings) -> bool:
    """Whether there are any: without, requests are anonymous."""
    return settings.s3_credentials != "keys" or bool(settings.s3_access_key.get_secret_value())


def credential_provider(settings: Settings) -> Callable[[], S3Credential]:
    """For obstore, which asks again when the keys are about to expire. Nothing is taken from AWS_… variables unless
    AII_S3_CREDENTIALS asks for a role.

    Raises:
        InvalidSetting: a setting that these keys need is missing, or the package `minio` is.
    """
    if settings.s3_credentials == "keys":
        keys = _static(settings)
        return lambda: keys
    provider = minio_provider(settings)

    def renewed() -> S3Credential:
        given = provider.retrieve()
        expires = given.expiration.replace(tzinfo=datetime.UTC) if given.expiration else None  # UTC, without saying so
        return {
            "access_key_id": given.access_key,
            "secret_access_key": given.secret_key,
            "token": given.session_token,
            "expires_at": expires - _EARLIER if expires else None,
        }

    return renewed


def minio_provider(settings: Settings) -> Provider:
    """The same for the `minio` package's own client."""
    if importlib.util.find_spec("minio") is None:
        raise InvalidSetting(
            "AII_S3_CREDENTIALS: roles and web identities need the package `minio`: "
            "pip install 'active-image-indexing[minio]'."
        )
    from minio.credentials import providers  # noqa: PLC0415  # of an extra

    if settings.s3_credentials == "role":
        return cast("Provider", _Discreet(providers.IamAwsProvider()))
    if settings.s3_credentials == "web-identity":
        return cast("Provider", _Discreet(providers.WebIdentityProvider(**_web_identity(settings))))
    static = _static(settings)
    return providers.StaticProvider(static["access_key_id"], static["secret_access_key"], static["token"])


class _Discreet:
    """A provider whose errors do not repeat the address that it asked, which holds the token."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    def retrieve(self) -> Credentials:
        try:
            return self._provider.retrieve()
        except Exception as error:
            kind = type(error).__name__
        raise StorageUnavailable(
            f"No keys for S3 could be had ({kind}): check AII_S3_CREDENTIALS and what belongs to it."
        )


def _static(settings: Settings) -> S3Credential:
    return {
        "access_key_id": settings.s3_access_key.get_secret_value(),
        "secret_access_key": settings.s3_secret_key.get_secret_value(),
        "token": settings.s3_session_token.get_secret_value() or None,
        "expires_at": None,
    }


def _web_identity(settings: Settings) -> dict[str, Any]:
    if not settings.s3_token_file:
        raise InvalidSetting("AII_S3_TOKEN_FILE: web identity needs the file that holds the token: set its path.")
    file = Path(settings.s3_token_file)
    default = f"{'https' if settings.s3_secure else 'http'}://{settings.s3_endpoint}"
    return {
        "jwt_provider_func": lambda: {"access_token": file.read_text().strip(), "expires_in": str(_VALID_S)},
        "sts_endpoint": settings.s3_sts_endpoint or default,
        "role_arn": settings.s3_role_arn or None,
        "role_session_name": _SESSION if settings.s3_role_arn else None,
    }
