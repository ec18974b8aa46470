"""What is evaluated: an extractor, photographs, and the images that fill the index around them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from tasks.errors import BadInput, InvalidRequest
from tasks.names import sha256_hex
from workers.activation.engine import Engine
from workers.evaluation.extraction import Extract
from workers.images import DecodedImage, Limits, decode
from workers.images.folders import ImageFile, listed_images
from workers.index.codec.codec import Features

__all__ = ["Photograph", "Photographs", "Sources", "Subject", "read_photographs", "read_subject"]

# Of five photographs one is kept as unrelated: with fewer there would be none.
_FEWEST: Final = 5


@dataclass(frozen=True)
class Photograph:
    """An image that is activated: its file, read and decoded at each use, so that none is kept in memory."""

    name: str
    file: ImageFile

    def decoded(self, limits: Limits) -> DecodedImage:
        return decode(self.file.read(), limits)


@dataclass(frozen=True)
class Sources:
    """Where images come from; each a folder, a tar file or an image.

    Attributes:
        photographs: what is activated and edited.
        references: what fills the index.
        training: what codecs are trained on; the references when there is none.
        only: names of the photographs that are taken, without suffix; all when empty.
        every: of the photographs, every K-th is taken.
        unrelated: unregistered images, edited already; when empty, some photographs serve instead.
        related: names of those among `unrelated` that are copies of something, and are left out.
    """

    photographs: Sequence[Path]
    references: Sequence[Path]
    training: Sequence[Path] = ()
    only: frozenset[str] = frozenset()
    every: int = 1
    unrelated: Sequence[Path] = ()
    related: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Photographs:
    """Those that can be decoded.

    Attributes:
        registered: by the digests of their files.
        unrelated: those that the index does not know; what they find is a false match.
        edited: whether `unrelated` are edited already.
        skipped: a line for each file that is left out.
    """

    registered: Mapping[str, Photograph]
    unrelated: Mapping[str, Photograph]
    edited: bool
    skipped: Sequence[str]

    @property
    def sha256(self) -> str:
        """A digest over all names and contents."""
        lines = (f"{p.name} {digest}\n" for part in (self.registered, self.unrelated) for digest, p in part.items())
        return hashlib.sha256("".join(lines).encode()).hexdigest()


@dataclass(frozen=True)
class Subject:
    """All that an evaluation needs, loaded.

    Attributes:
        references: (N, D), mapped from disk; no photograph is among them, or it would compete with itself.
        training: (M, D), what codecs are trained on, as is.
        registered, unrelated, edited: as in :class:`Photographs`.
        skipped: a line for each file that is left out.
    """

    engine: Engine
    limits: Limits
    registered: Sequence[Photograph]
    unrelated: Sequence[Photograph]
    edited: bool
    references: Features
    training: Features
    skipped: Sequence[str]


def read_photographs(
    sources: Sources, limits: Limits, count: int | None, seed: int, progress: Callable[[int, int], None]
) -> Photographs:
    """Find those that can be decoded, `count` at most, and set some aside as unrelated.

    Args:
        progress: called with the number of files read, and of all.

    Raises:
        InvalidRequest: there are too few.
    """
    skipped: list[str] = []
    candidates = [f for source in sources.photographs for f in list(listed_images(source))[:: sources.every]]
    chosen = [f for f in candidates if not sources.only or Path(f.name).stem in sources.only]
    found = _readable(chosen, limits, skipped, progress)
    if not found:
        raise InvalidRequest(f"There is no image that can be read in {_names(sources.photographs)}.")
    registered = dict(list(found.items())[:count])
    others = [f for source in sources.unrelated for f in listed_images(source)]
    unrelated_files = [f for f in others if Path(f.name).stem not in sources.related]
    unrelated = _readable(unrelated_files, limits, skipped, progress)
    if unrelated:
        return Photographs(registered, unrelated, True, skipped)
    if len(registered) < _FEWEST:
        raise InvalidRequest(f"{len(registered)} images that can be read are too few: {_FEWEST} are the least.")
    return Photographs(*_parted(registered, seed), False, skipped)


def read_subject(
    engine: Engine, limits: Limits, sources: Sources, photographs: Photographs, folder: Path, extract: Extract
) -> Subject:
    """Extract the references' features into `folder`, where a second run finds them.

    Raises:
        InvalidRequest: there is no reference.
    """
    extracted = extract(sources.references, folder)
    references = extracted.without(photographs.registered.keys() | photographs.unrelated.keys(), folder / "others.f32")
    if not references.assets:
        raise InvalidRequest(f"There is no reference that can be read in {_names(sources.references)}: name some.")
    training = extract(sources.training, folder) if sources.training else references
    return Subject(
        engine, limits, list(photographs.registered.values()), list(photographs.unrelated.values()),
        photographs.edited, references.features, training.features, [*photographs.skipped, *references.skipped],
    )  # fmt: skip


def _readable(
    files: Sequence[ImageFile], limits: Limits, skipped: list[str], progress: Callable[[int, int], None]
) -> dict[str, Photograph]:
    """By digest, the files that can be decoded. Equal files would compete with each other: the first one counts."""
    good: dict[str, Photograph] = {}
    for number, file in enumerate(files, 1):
        try:
            data = file.read()
            decode(data, limits)
        except BadInput as error:
            skipped.append(f"{file.name}: {error.message} [{error.code}]")
            continue
        twin = good.setdefault(sha256_hex(data), Photograph(file.name, file))
        if twin.file is not file:
            skipped.append(f"{file.name}: The same file as {twin.name}.")
        progress(number, len(files))
    return good


def _parted(photographs: Mapping[str, Photograph], seed: int) -> tuple[dict[str, Photograph], dict[str, Photograph]]:
    """Four of five are registered; one of five, chosen by the seed, is unrelated to all that is."""
    order = np.random.default_rng(seed).permutation(len(photographs))
    unrelated = set(order[: len(photographs) // 5].tolist())
    return (
        {d: p for i, (d, p) in enumerate(photographs.items()) if i not in unrelated},
        {d: p for i, (d, p) in enumerate(photographs.items()) if i in unrelated},
    )


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths)) or "no folder at all"
