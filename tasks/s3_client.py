"""How a client of one bucket is made: keys, attempts, time-outs, and no proxy to a service on this machine."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from obstore.store import S3Store

from tasks.network import is_loopback
from tasks.s3_credentials import credential_provider, signs_requests
from tasks.settings import Settings

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

__all__ = ["s3_client", "s3_url"]

_TRIES: Final[RetryConfig] = {
    "max_retries": 1,
    "retry_timeout": timedelta(seconds=10),
    "backoff": {"init_backoff": timedelta(seconds=0.2), "max_backoff": timedelta(seconds=1), "base": 2},
}


def s3_url(settings: Settings) -> str:
    """Of the service, by its endpoint."""
    return f"{'https' if settings.s3_secure else 'http'}://{settings.s3_endpoint}"


def s3_client(settings: Settings, bucket: str) -> S3Store:
    """Does not connect yet. Its time-outs are short (obstore's: ten attempts in three minutes)."""
    client: ClientConfig = {
        "allow_http": not settings.s3_secure,
        "connect_timeout": "3s",
        "read_timeout": "30s",
        "timeout": "1h",  # for all of a large file
    }
    url = s3_url(settings)
    if is_loopback(urlsplit(url).hostname or ""):
        # A proxy that is named here, and used for no host, keeps the client from those in the environment.
        client |= {"proxy_url": "http://127.0.0.1:9", "proxy_excludes": "localhost,.localhost,127.0.0.0/8,::1"}
    return S3Store(
        bucket,
        endpoint=url,
        region=settings.s3_region,
        virtual_hosted_style_request=False,
        skip_signature=not signs_requests(settings),
        credential_provider=credential_provider(settings),
        client_options=client,
        retry_config=_TRIES,
    )
