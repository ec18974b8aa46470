"""Content credentials (C2PA) of a protected file: its source's manifest, signed again for what is published.

The manifest of the source becomes an ingredient of a new one, which says what was done and carries the asset's code as
a soft binding. Without a key the file has none; the source's manifest is kept either way, and found by copies.
"""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from PIL import Image

from tasks.assets.manifests import ALGORITHM, kept_manifest
from tasks.errors import InvalidSetting
from tasks.formats import HEAD_BYTES, format_of
from tasks.results import KeptManifest
from tasks.settings import Settings
from workers.images import EncodedImage
from workers.images.metadata import MANIFEST

if TYPE_CHECKING:
    import c2pa

__all__ = ["Credentials", "Issued", "SigningKey"]

logger = logging.getLogger(__name__)

# Nothing is fetched for an image: neither a manifest from the address that it names, nor lists of revoked certificates.
_SETTINGS: Final = {
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_trust": False},
    "builder": {"thumbnail": {"enabled": False}},
}
_PARENT: Final = "parentOf"


@dataclass(frozen=True)
class Issued:
    """A file to publish, and the manifest store that is kept for its asset."""

    encoded: EncodedImage
    manifest: KeptManifest | None = None
    store: bytes = b""


@dataclass(frozen=True)
class SigningKey:
    """What files are signed with: a private key and its chain of certificates, as PEM."""

    chain: bytes
    key: bytes = field(repr=False)
    algorithm: str
    timestamp_url: str = ""

    @classmethod
    def of(cls, settings: Settings) -> SigningKey | None:
        """None where the settings name none; raises InvalidSetting."""
        if not settings.c2pa_key:
            return None
        chain, key = (_read(path) for path in (settings.c2pa_certificates, settings.c2pa_key))
        return cls(chain, key, settings.c2pa_algorithm, settings.c2pa_timestamp_url)

    def signer(self) -> c2pa.Signer:
        """Raises InvalidSetting."""
        try:
            import c2pa  # noqa: PLC0415  # of the extra
        except ModuleNotFoundError as error:
            raise InvalidSetting("AII_C2PA_KEY needs the extra: pip install 'active-image-indexing[c2pa]'.") from error
        algorithm, timestamps = c2pa.C2paSigningAlg[self.algorithm.upper()], self.timestamp_url.encode() or None
        try:
            return c2pa.Signer.from_info(c2pa.C2paSignerInfo(algorithm, self.chain, self.key, timestamps))
        except c2pa.C2paError as error:
            raise InvalidSetting(f"AII_C2PA_KEY and AII_C2PA_CERTIFICATES cannot be used: {error}.") from error


class Credentials:
    """Signs, where there is a key. Thread-safe. Raises InvalidSetting when the key cannot be used."""

    def __init__(self, key: SigningKey | None = None) -> None:
        self._key = key
        if key:
            _check(replace(key, timestamp_url=""))

    def issue(
        self, source: bytes, store: bytes | None, encoded: EncodedImage, title: str, binding: str, *, changed: bool
    ) -> Issued:
        """The file with credentials, when its source has some.

        Args:
            source: the image as it was submitted.
            store: the manifest store in it.
            binding: see :func:`tasks.assets.manifests.binding_value`.
            changed: whether the picture was changed, beyond its compression.
        """
        if store is None:
            return Issued(encoded)
        if self._key:
            try:
                manifest = _manifest(title, encoded, binding)
                return _signed(self._key, source, encoded, manifest, _action(changed=changed))
            except Exception as error:  # of the library, which reads what anyone may have written
                logger.warning("A manifest could not be signed again: %s", error)
                encoded = replace(encoded, lost=(*encoded.lost, f"{MANIFEST}: it could not be signed again"))
        return Issued(encoded, kept_manifest(store, signed=False), store)


def _check(key: SigningKey) -> None:
    """Sign a small picture, which reads the certificates too; raises InvalidSetting."""
    signer, picture = key.signer(), io.BytesIO()
    import c2pa  # noqa: PLC0415  # of the extra, which is there

    Image.new("L", (8, 8)).save(picture, "PNG")
    try:
        with signer, c2pa.Context.from_dict(_SETTINGS) as context, c2pa.Builder({}, context=context) as builder:
            builder.set_intent(c2pa.C2paBuilderIntent.CREATE, c2pa.C2paDigitalSourceType.EMPTY)
            builder.sign(signer, "image/png", picture, io.BytesIO())
    except c2pa.C2paError as error:
        raise InvalidSetting(f"AII_C2PA_KEY and AII_C2PA_CERTIFICATES cannot be used: {error}.") from error


def _signed(
    key: SigningKey, source: bytes, encoded: EncodedImage, manifest: dict[str, Any], action: dict[str, Any]
) -> Issued:
    import c2pa  # noqa: PLC0415  # of the extra

    known, target = format_of(source[:HEAD_BYTES]), io.BytesIO()
    assert known is not None  # it has a manifest
    with (
        c2pa.Context.from_dict(_SETTINGS) as context,
        c2pa.Builder(manifest, context=context) as builder,
        key.signer() as signer,
    ):
        builder.set_intent(c2pa.C2paBuilderIntent.EDIT)
        ingredient = {"title": manifest["title"], "relationship": _PARENT}
        builder.add_ingredient(ingredient, known.content_type, io.BytesIO(source))
        builder.add_action(action)
        store = builder.sign(signer, encoded.content_type, io.BytesIO(encoded.data), target)
    lost = tuple(line for line in encoded.lost if not line.startswith(MANIFEST))
    return Issued(replace(encoded, data=target.getvalue(), lost=lost), kept_manifest(store, signed=True), store)


def _manifest(title: str, encoded: EncodedImage, binding: str) -> dict[str, Any]:
    return {
        "claim_generator_info": [{"name": "active image indexing", "version": version("active-image-indexing")}],
        "title": title,
        "format": encoded.content_type,
        "assertions": [
            {
                "label": "c2pa.soft-binding",
                "data": {"alg": ALGORITHM, "blocks": [{"scope": {}, "value": binding}]},
            }
        ],
    }


def _action(*, changed: bool) -> dict[str, Any]:
    if not changed:
        return {"action": "c2pa.transcoded"}
    return {"action": "c2pa.edited", "parameters": {"description": "Changed imperceptibly, so that copies are found."}}


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InvalidSetting(f"{path or 'AII_C2PA_CERTIFICATES'} cannot be read: {error.strerror}.") from error
