"""Which asset id each image of a command gets: two images never one."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

import click

from producer.outputs import digest_of
from producer.search import Found

__all__ = ["AssetIdFrom", "asset_ids"]

AssetIdFrom = Literal["digest", "name", "path"]

_IDS: Final[Mapping[AssetIdFrom, Callable[[Found], str]]] = {
    "name": lambda image: image.relative.name,
    "path": lambda image: image.relative.as_posix(),
}


_OTHER_WAYS: Final = "use --asset-id-from path or digest"


def asset_ids(found: Sequence[Found], ids_from: AssetIdFrom, single: str | None) -> dict[Found, str]:
    """The asset ids of images; one that is missing is the digest of the image's bytes.

    Args:
        ids_from: what is made an asset id: the file's name, its path below the folder that was named, or the digest.
        single: the asset id of a single image.

    Raises:
        UsageError: `single` is given and there are several images; or two images of different content would have one
            asset id.
    """
    if single is not None:
        if len(found) != 1:
            raise click.UsageError(f"--asset-id names one image, and {len(found)} were given.")
        return {found[0]: single}
    if ids_from == "digest":
        return {}
    ids = {image: unicodedata.normalize("NFC", _IDS[ids_from](image)) for image in found}
    _refuse_twice(ids, "rename one, or use --asset-id-from digest" if ids_from == "path" else _OTHER_WAYS)
    return ids


def _refuse_twice(ids: Mapping[Found, str], remedy: str) -> None:
    first: dict[str, Found] = {}
    for image, asset_id in ids.items():
        other = first.setdefault(asset_id, image)
        if other is not image and digest_of(other.source) != digest_of(image.source):
            raise click.UsageError(f"{other.name} and {image.name} would both be the asset {asset_id!r}: {remedy}.")
