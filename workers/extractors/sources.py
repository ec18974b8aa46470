"""Where weights come from: a path, an object in the store, or a URL. What comes over a network is pinned at its first
use: the same address must give the same bytes ever after."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import urllib3

from tasks.errors import CorruptExtractor, ExtractorMismatch, ExtractorMissing, ObjectMissing, TooLarge
from tasks.files import move_into_place, part_file, write_atomically
from tasks.storage import Bucket, ObjectStore

__all__ = ["fetch"]

logger = logging.getLogger(__name__)

_MAX_BYTES: Final = 4 * 2**30
_CHUNK: Final = 1 << 20
_FOREIGN: Final = "check where the file comes from, or correct the digest in the extractor's name"


def fetch(address: str, sha256: str | None, folder: Path, store: ObjectStore | None) -> tuple[Path, str]:
    """A local file with the weights, and its digest.

    Args:
        address: a path, ``s3://BUCKET/KEY`` or ``http(s)://…``.
        sha256: what the digest has to be; when not given, whatever it was at the first use.
        folder: where downloads and pins are kept.
        store: needed for ``s3://`` only.

    Raises:
        ExtractorMissing: there is nothing at the address, or it cannot be reached.
        ExtractorMismatch: the digest is another one.
        CorruptExtractor: the download ended early.
    """
    if "://" not in address:
        path = Path(address).expanduser()
        if not path.is_file():
            raise ExtractorMissing(f"There is no weights file {address}: check the path (AII_EXTRACTOR).")
        return path, _checked(address, digest_of(path), sha256, _FOREIGN)
    pins = _Pins(folder / "pins.json")
    wanted = sha256 or pins.of(address)
    if wanted and (kept := folder / wanted).is_file() and digest_of(kept) == wanted:
        pins.record(address, wanted)
        return kept, wanted
    folder.mkdir(parents=True, exist_ok=True)
    with part_file(folder) as part:
        with part.open("wb") as file:
            file.writelines(_stream(address, store))
        by_pin = f"if it was replaced on purpose, delete its line from {pins.path}"
        digest = _checked(address, digest_of(part), wanted, _FOREIGN if sha256 else by_pin)
        move_into_place(part, folder / digest)
    pins.record(address, digest)
    return folder / digest, digest


def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checked(address: str, digest: str, wanted: str | None, remedy: str) -> str:
    if wanted and digest != wanted:
        raise ExtractorMismatch(f"{address} has sha256 {digest}, and {wanted} was expected: {remedy}.")
    return digest


def _stream(address: str, store: ObjectStore | None) -> Iterator[bytes]:
    scheme = urlsplit(address).scheme
    if scheme in ("http", "https"):
        return _over_http(address)
    if scheme == "s3" and store is not None:
        return _from_store(address, store)
    raise ExtractorMissing(f"Weights cannot be fetched from {address}: give a path, s3://BUCKET/KEY or an http(s) URL.")


def _from_store(address: str, store: ObjectStore) -> Iterator[bytes]:
    parts = urlsplit(address)
    ours = store.name_of(Bucket.EXTRACTORS)
    if parts.netloc != ours:
        raise ExtractorMissing(f"{address}: weights are read from s3://{ours}/… only (AII_BUCKET_EXTRACTORS).")
    try:
        yield from store.stream(Bucket.EXTRACTORS, parts.path.lstrip("/"), _MAX_BYTES)
    except ObjectMissing as error:
        raise ExtractorMissing(f"There are no weights at {address}: upload them, or correct AII_EXTRACTOR.") from error


def _over_http(address: str) -> Iterator[bytes]:
    pool = urllib3.PoolManager(timeout=urllib3.Timeout(connect=10.0, read=60.0), retries=urllib3.Retry(3, redirect=5))
    received = 0
    try:
        response = pool.request("GET", address, preload_content=False, headers={"Accept-Encoding": "identity"})
        if response.status != 200:
            raise ExtractorMissing(f"{address} answered {response.status}: check it, or fetch the file by hand.")
        logger.info("Downloading the extractor's weights from %s", address)
        for chunk in response.stream(_CHUNK):
            received += len(chunk)
            if received > _MAX_BYTES:
                raise TooLarge(f"{address} is larger than {_MAX_BYTES:,} bytes: no weights file is.")
            yield chunk
    except (urllib3.exceptions.ProtocolError, urllib3.exceptions.ReadTimeoutError) as error:
        raise CorruptExtractor(
            f"The download of {address} was cut off after {received:,} bytes ({error}); nothing was kept: start again."
        ) from error
    except urllib3.exceptions.HTTPError as error:
        raise ExtractorMissing(
            f"{address} cannot be reached ({type(error).__name__}): fetch the file by hand and give its path."
        ) from error
    finally:
        pool.clear()


class _Pins:
    """Address → digest, in one JSON file that a person may edit."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def of(self, address: str) -> str | None:
        return self._read().get(address)

    def record(self, address: str, digest: str) -> None:
        pins = self._read()
        if pins.get(address) != digest:
            write_atomically(self.path, json.dumps({**pins, address: digest}, indent=2) + "\n")

    def _read(self) -> dict[str, str]:
        try:
            pins: dict[str, str] = json.loads(self.path.read_text())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise ExtractorMismatch(f"{self.path} is not JSON any more ({error}): repair or delete it.") from error
        return pins
