"""The whole evaluation: the paper's tables (Fernandez et al., "Active Image Indexing", ICLR 2023, section 5), on
anybody's images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np

from tasks.messages import ActivationOptions
from workers.evaluation.copies import copies_of, features_of
from workers.evaluation.detection import detect
from workers.evaluation.edits import EDITS
from workers.evaluation.published import PublishedSet
from workers.evaluation.searching import First, Index, exact_first, recall_by_edit
from workers.evaluation.subject import Photograph, Subject
from workers.evaluation.tables import Findings, RecallRow, SearchRow, WayRow, way_row
from workers.index.codec import Codec, Codes, Features

__all__ = ["FLAT", "Evaluation", "Extent", "Trained"]

FLAT: Final = "Flat"
_NPROBES: Final = (1, 2, 4, 8, 16, 32, 64)
_TABLE_NPROBES: Final = (1, 16)
_STRENGTHS: Final = (("jnd", (2.0, 3.0, 4.5)), ("linf", (2.0, 3.5, 5.0)))
_PLAIN: Final = ActivationOptions()

Copies = dict[str, Features]
Progress = Callable[[str, int], None]


@dataclass(frozen=True)
class Trained:
    """An index that was trained elsewhere; `sha256` of its file."""

    factory: str
    codec: Codec
    sha256: str


@dataclass(frozen=True)
class Extent:
    """How much is measured: the main index on all photographs, the others and other ways of activating on fewer.

    Attributes:
        trained: the main index, if it is not to be trained here.
    """

    main: str
    others: Sequence[str]
    trained: Trained | None = None
    others_count: int = 200
    strengths_count: int = 100


class Evaluation:
    """Measures one table after the other into :attr:`findings`; what takes long is kept in `folder`, by codec and way,
    so that a second run of the same command goes on.

    Args:
        progress: told what is being done, and how many images of it are.
    """

    def __init__(self, subject: Subject, extent: Extent, folder: Path, seed: int, progress: Progress) -> None:
        self.findings = Findings()
        self._subject = subject
        self._extent = extent
        # A collection may have another codec the next time, under the same factory string.
        self._folder = folder / extent.trained.sha256[:12] if extent.trained else folder
        self._seed = seed
        self._progress = progress
        self._codecs: dict[str, tuple[Codec, Codes]] = {}

    def run(self) -> Findings:
        self._main()
        self._other_indexes()
        self._other_ways()
        self._strengths()
        self._detection()
        return self.findings

    @property
    def published(self) -> list[Photograph]:
        """The registered photographs as they were published for the main index."""
        return self._published(self._extent.main, _PLAIN, self._subject.registered).photographs

    # ── tables ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _main(self) -> None:
        """R@1 by edit: no index, and the main index by nprobe, passive and activated."""
        subject, main, originals = self._subject, self._extent.main, self._originals
        copies = self._copies("passive", subject.registered)
        exact = exact_first(subject.references, originals, _stacked(copies))
        vectors = len(subject.references) + len(originals)
        self.findings.recall.append(RecallRow(FLAT, 0, False, len(originals), recall_by_edit(exact, copies)))
        self.findings.searches.append(SearchRow(FLAT, 0, vectors, exact.ms, 4 * originals.shape[1]))
        codec, _ = self._codec(main)
        self._measure(main, codec.encode(originals), copies, _NPROBES, activated=False)
        published = self._published(main, _PLAIN, subject.registered)
        self.findings.images = published.images
        copies = self._copies(_key(main, _PLAIN), published.photographs)
        self._measure(main, published.codes, copies, _NPROBES, activated=True)

    def _other_indexes(self) -> None:
        """The other indexes, passive and activated, on fewer photographs."""
        some = self._subject.registered[: self._extent.others_count]
        passive = _first(self._copies("passive", self._subject.registered), len(some))
        for factory in self._extent.others:
            codec, _ = self._codec(factory)
            self._measure(factory, codec.encode(self._originals[: len(some)]), passive, (1,), activated=False)
            published = self._published(factory, _PLAIN, some)
            copies = self._copies(_key(factory, _PLAIN), published.photographs)
            self._measure(factory, published.codes, copies, (1,), activated=True)

    def _other_ways(self) -> None:
        """Ten steps, one step, and robust, on the same photographs."""
        some = self._subject.registered[: self._extent.others_count]
        for way, options in (
            ("10 steps", _PLAIN), ("1 step", ActivationOptions(steps=1)), ("robust", ActivationOptions(robust=True)),
        ):  # fmt: skip
            self.findings.ways.append(self._way(way, options, some))

    def _strengths(self) -> None:
        """The perceptual mask against an equal bound for all pixels, at several strengths."""
        some = self._subject.registered[: self._extent.strengths_count]
        for attenuation, alphas in _STRENGTHS:
            for alpha in alphas:
                options = ActivationOptions.model_validate({"alpha": alpha, "attenuation": attenuation})
                self.findings.strengths.append(self._way(attenuation, options, some))

    def _detection(self) -> None:
        """Copies against edited images that nobody registered, at nprobe 1."""
        main, originals = self._extent.main, self._originals
        codec, references = self._codec(main)
        unrelated = _stacked(self._copies("unrelated", self._subject.unrelated))
        published = self._published(main, _PLAIN, self._subject.registered)
        right = np.tile(np.arange(len(originals)), len(EDITS))
        for activated in (False, True):
            codes = published.codes if activated else codec.encode(originals)
            photographs = published.photographs if activated else self._subject.registered
            copies = self._copies(_key(main, _PLAIN) if activated else "passive", photographs)
            index = Index(codec, references, codes)
            self.findings.detections[activated] = detect(
                index.first(_stacked(copies), 1), right, index.first(unrelated, 1)
            )

    # ── what they are made of ────────────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def _originals(self) -> Features:
        """(N, D) of the registered photographs as they are."""
        subject = self._subject
        return features_of(subject.registered, subject.engine, subject.limits, EDITS["identity"], self._seed)

    def _codec(self, factory: str) -> tuple[Codec, Codes]:
        """A codec, trained for this run unless one was given, and the references' codes."""
        if factory not in self._codecs:
            given = self._extent.trained
            codec = given.codec if given and factory == given.factory else self._trained(factory)
            parts = np.array_split(self._subject.references, 1 + len(self._subject.references) // 100_000)
            self._codecs[factory] = codec, np.concatenate([codec.encode(part) for part in parts])
        return self._codecs[factory]

    def _trained(self, factory: str) -> Codec:
        self._progress(f"training {factory}", len(self._subject.training))
        return Codec.train(factory, np.array(self._subject.training))

    def _published(self, factory: str, options: ActivationOptions, photographs: Sequence[Photograph]) -> PublishedSet:
        key = _key(factory, options)
        published = PublishedSet(self._folder / "published" / key, self._codec(factory)[0], options)
        subject = self._subject
        published.fill(subject.engine, photographs, subject.limits, lambda n: self._progress(f"activating {key}", n))
        return published

    def _copies(self, key: str, photographs: Sequence[Photograph]) -> Copies:
        subject = self._subject
        folder = self._folder / "copies" / key
        return copies_of(
            photographs, subject.engine, subject.limits, folder, self._seed,
            lambda n: self._progress(f"editing {key}", n),
        )  # fmt: skip

    def _measure(
        self, factory: str, registered: Codes, copies: Copies, nprobes: Sequence[int], *, activated: bool
    ) -> None:
        """R@1 and, for passive images, the time of a search."""
        codec, references = self._codec(factory)
        index = Index(codec, references, registered)
        for nprobe in nprobes if codec.cell_size else (1,):
            first = index.first(_stacked(copies), nprobe)
            shares = recall_by_edit(first, copies)
            self.findings.recall.append(RecallRow(factory, nprobe, activated, len(registered), shares))
            if not activated and nprobe in _TABLE_NPROBES:
                self.findings.searches.append(SearchRow(factory, nprobe, len(index), first.ms, codec.code_size))

    def _way(self, way: str, options: ActivationOptions, photographs: Sequence[Photograph]) -> WayRow:
        """One way of activating, on the main index."""
        main = self._extent.main
        codec, references = self._codec(main)
        published = self._published(main, options, photographs)
        images = published.images[: len(photographs)]
        key = _key(main, options)
        copies = _first(self._copies(key, published.photographs), len(images))
        first: First = Index(codec, references, published.codes[: len(images)]).first(_stacked(copies), 1)
        average = float(np.mean(list(recall_by_edit(first, copies).values())))
        return way_row(way, options.alpha, average, images)


def _stacked(copies: Copies) -> Features:
    """(E·N, D): the copies of all edits, one edit after the other."""
    return np.concatenate(list(copies.values()))


def _first(copies: Copies, count: int) -> Copies:
    return {name: features[:count] for name, features in copies.items()}


def _key(factory: str, options: ActivationOptions) -> str:
    """A folder's name for a codec and a way of activating."""
    way = f"{options.steps}-{options.attenuation}-{options.alpha:g}{'-robust' if options.robust else ''}"
    return f"{factory.replace(',', '_')}-{way}"
