"""Features of many image files, kept on disk: a run that was interrupted goes on where it stopped."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from tasks.errors import BadInput, InvalidRequest
from tasks.names import sha256_hex
from workers.extractors.base import FeatureSource
from workers.images import Limits, decode
from workers.images.folders import ImageFile, listed_images, listing_digest
from workers.images.tensors import to_input

__all__ = ["FeatureFolder", "Features"]

Features = npt.NDArray[np.float32]
_BATCH: Final = 32  # small enough for the processor's caches


class FeatureFolder:
    """``features.f32`` (N, D), ``assets.txt`` with the N digests of the files they are of, and ``skipped.txt`` with the
    files that could not be read. The three grow together, a batch at a time; what an interruption left of a batch is
    cut off at the next start.

    Raises:
        InvalidRequest: the folder holds features of other images, or by another extractor.
    """

    def __init__(self, folder: Path, extractor: FeatureSource, sources: Iterable[Path]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._features = folder / "features.f32"
        self._assets = folder / "assets.txt"
        self._skipped = folder / "skipped.txt"
        self._done = folder / "done.json"
        self._extractor = extractor
        self._sources = [path.absolute() for path in sources]
        made_of = {"extractor": extractor.sha256, "images": listing_digest(self._sources)[0]}
        self._check(folder / "made_of.json", made_of)

    def fill(self, limits: Limits, progress: Callable[[int], None]) -> None:
        """Extract what is not there yet; `progress` is called with the number of files done after each batch."""
        seen, assets = self._restored()
        progress(seen)
        files = islice(self._files(), seen, None)
        known = set(assets)
        while batch := list(islice(files, _BATCH)):
            self._append(batch, known, limits)
            seen += len(batch)
            self._done.write_text(json.dumps({"files": seen, "assets": len(known), "skipped": len(self.skipped)}))
            progress(seen)

    @property
    def assets(self) -> list[str]:
        """The digests (N) of the files, in the order of the features."""
        return self._assets.read_text("utf-8").split() if self._assets.exists() else []

    @property
    def skipped(self) -> list[str]:
        """A line ``name: why`` for each file that could not be read."""
        return self._skipped.read_text("utf-8").splitlines() if self._skipped.exists() else []

    @property
    def features(self) -> Features:
        """(N, D) float32, mapped: read into memory only where they are used."""
        if not self.assets:
            return np.empty((0, self._extractor.dimension), dtype=np.float32)
        return np.memmap(self._features, dtype=np.float32, mode="r").reshape(-1, self._extractor.dimension)

    def remove(self) -> None:
        """Delete the folder; what was read of it before stays readable."""
        shutil.rmtree(self._done.parent)

    def _files(self) -> Iterator[ImageFile]:
        for source in self._sources:
            yield from listed_images(source)

    def _append(self, batch: list[ImageFile], known: set[str], limits: Limits) -> None:
        inputs, digests, refused = [], [], []
        for image in batch:
            try:
                data = image.read()
                pixels = decode(data, limits).pixels
            except BadInput as error:
                refused.append(f"{image.name}: {error.message} [{error.code}]\n")
                continue
            if (digest := sha256_hex(data)) not in known:  # the same file under two names is one asset
                known.add(digest)
                inputs.append(to_input(pixels, self._extractor.input_size))
                digests.append(digest + "\n")
        if inputs:
            with torch.no_grad():
                features = self._extractor(torch.stack(inputs).to(self._extractor.device)).cpu().numpy()
            with self._features.open("ab") as file:
                file.write(features.tobytes())
        for path, lines in ((self._assets, digests), (self._skipped, refused)):
            with path.open("a", encoding="utf-8") as text:
                text.writelines(lines)

    def _restored(self) -> tuple[int, list[str]]:
        """How many files are done, and their assets, after cutting off what an interruption left half done."""
        done = json.loads(self._done.read_text()) if self._done.exists() else {"files": 0, "assets": 0, "skipped": 0}
        assets, skipped = self.assets[: done["assets"]], self.skipped[: done["skipped"]]
        self._assets.write_text("".join(f"{asset}\n" for asset in assets), "utf-8")
        self._skipped.write_text("".join(f"{line}\n" for line in skipped), "utf-8")
        with self._features.open("ab") as file:
            file.truncate(4 * self._extractor.dimension * len(assets))
        return done["files"], assets

    @staticmethod
    def _check(path: Path, made_of: dict[str, str]) -> None:
        if path.exists() and json.loads(path.read_text()) != made_of:
            raise InvalidRequest(
                f"{path.parent} holds features of other images, or by another extractor: empty it, or name another."
            )
        path.write_text(json.dumps(made_of))
