"""What is evaluated: an extractor, photographs, and the images that fill the index around them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tasks.errors import BadInput, InvalidRequest
from tasks.names import sha256_hex
from workers.activation.engine import Engine
from workers.evaluation.extraction import Extract
from workers.images import DecodedImage, Limits, decode
from workers.images.folders import image_files
from workers.index.codec import Features

__all__ = ["Photograph", "Sources", "Subject", "read_photographs", "read_subject"]


@dataclass(frozen=True)
class Photograph:
    """An image that is activated: its file, decoded only while somebody looks at it."""

    name: str
    data: bytes

    def decoded(self, limits: Limits) -> DecodedImage:
        return decode(self.data, limits)


@dataclass(frozen=True)
class Sources:
    """Where images come from.

    Attributes:
        photographs: folders or tar files of what is activated and edited.
        references: of what fills the index.
        training: of what codecs are trained on; the references when there are none.
        only: names of the photographs that are taken from their folders; all when empty.
    """

    photographs: Sequence[Path]
    references: Sequence[Path]
    training: Sequence[Path] = ()
    only: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Subject:
    """Everything is ready.

    Attributes:
        references: (N, D), mapped from disk; no photograph is among them, or it would compete with itself.
        training: (M, D), what codecs are trained on, as is.
        registered: photographs that the index knows.
        unrelated: photographs that it does not; what they find is a false match.
        skipped: a line for each file that could not be read.
    """

    engine: Engine
    limits: Limits
    registered: Sequence[Photograph]
    unrelated: Sequence[Photograph]
    references: Features
    training: Features
    skipped: Sequence[str]


def read_subject(
    engine: Engine, limits: Limits, sources: Sources, folder: Path, count: int | None, seed: int, extract: Extract
) -> Subject:
    """Read photographs and extract the references' features into `folder`, where a second run finds them.

    Raises:
        InvalidRequest: there is no photograph that can be read, or no reference.
    """
    photographs, skipped = read_photographs(sources, limits)
    if not photographs:
        raise InvalidRequest(f"There is no image that can be read in {_names(sources.photographs)}.")
    extracted = extract(sources.references, folder / "references")
    references = extracted.without({sha256_hex(p.data) for p in photographs}, folder / "others.f32")
    if not references.assets:
        raise InvalidRequest(f"There is no reference that can be read in {_names(sources.references)}: name some.")
    training = extract(sources.training, folder / "training") if sources.training else references
    registered, unrelated = _parted(photographs[:count], seed)
    lines = [*skipped, *references.skipped]
    return Subject(engine, limits, registered, unrelated, references.features, training.features, lines)


def read_photographs(sources: Sources, limits: Limits) -> tuple[list[Photograph], list[str]]:
    """The files that can be decoded, and a line for each that cannot."""
    good: list[Photograph] = []
    skipped: list[str] = []
    for source in sources.photographs:
        for name, data in image_files(source):
            if sources.only and Path(name).stem not in sources.only:
                continue
            try:
                decode(data, limits)
            except BadInput as error:
                skipped.append(f"{name}: {error.message} [{error.code}]")
            else:
                good.append(Photograph(name, data))
    return good, skipped


def _parted(photographs: Sequence[Photograph], seed: int) -> tuple[list[Photograph], list[Photograph]]:
    """Four of five are registered; one of five, chosen by the seed, is unrelated to all that is."""
    order = np.random.default_rng(seed).permutation(len(photographs))
    unrelated = set(order[: len(photographs) // 5].tolist())
    return (
        [p for i, p in enumerate(photographs) if i not in unrelated],
        [p for i, p in enumerate(photographs) if i in unrelated],
    )


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths)) or "no folder at all"
