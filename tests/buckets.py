"""Buckets beside our own, as upstream services have them."""

from __future__ import annotations

from obstore.store import S3Store

from tasks.settings import Settings
from tasks.storage import ObjectStore

__all__ = ["made_bucket"]


def made_bucket(settings: Settings, name: str) -> S3Store:
    """A client of the bucket `name` in the stack's S3, which is made unless there is one."""
    ObjectStore.connect(settings.model_copy(update={"bucket_originals": name})).ensure_buckets()
    return S3Store(
        name,
        endpoint=f"http://{settings.s3_endpoint}",
        region=settings.s3_region,
        access_key_id=settings.s3_access_key.get_secret_value(),
        secret_access_key=settings.s3_secret_key.get_secret_value(),
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )
