"""The whole evaluation: the paper's tables (Fernandez et al., "Active Image Indexing", ICLR 2023, section 5), on
the user's images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Final, Protocol

import numpy as np

from tasks.files import replacing
from tasks.messages import ActivationOptions
from tasks.names import sha256_hex
from workers.evaluation.copies import Copies, copies_of, features_of
from workers.evaluation.detection import detect
from workers.evaluation.findings import Findings, SearchRow, TimeRow, VariantRow, recall_row, variant_row
from workers.evaluation.geometry import cells_left, distances_of, has_distances
from workers.evaluation.published import PublishedSet
from workers.evaluation.ranking import DEPTH, all_pairs, rank_rows
from workers.evaluation.released import AS_IT_IS, RELEASES, ReleaseRow, released
from workers.evaluation.searching import FirstMatches, Index, exact_first_matches, found_by_edit
from workers.evaluation.subject import Photograph, Subject
from workers.evaluation.uncertainty import bootstrap
from workers.evaluation.verdicts import calibrated_on, verdict_rows
from workers.images.edits import EDITS, Edit
from workers.index.codec.codec import Codec, Codes, Features
from workers.index.codec.trainable import training_sample
from workers.index.maintenance.build import encode_all
from workers.index.verdicts.calibration import Calibration
from workers.index.verdicts.measure import Contents

__all__ = ["FLAT", "Evaluation", "EvaluationPlan", "Trained"]

FLAT: Final = "Flat"
_NPROBES: Final = (1, 2, 4, 8, 16, 32, 64)
_TABLE_NPROBES: Final = (1, 16)
# Chosen so that the two curves overlap in PSNR, in SSIM and in R@1.
_STRENGTHS: Final = (("jnd", (2.0, 3.0, 4.5, 7.0)), ("linf", (1.0, 2.0, 3.5, 5.0)))
_PLAIN: Final = ActivationOptions()
# Names what robust mode published: to be changed with its schedule, so that no run goes on with files of a former one.
# Ten steps of four views each were "-robust".
_ROBUST: Final = "-robust-2"


class Progress(Protocol):
    """Called with the name of the stage, the number of images done, and their total."""

    def __call__(self, what: str, count: int, total: int) -> None: ...


@dataclass(frozen=True)
class Trained:
    """An index that was trained elsewhere; `sha256` of its file."""

    factory: str
    codec: Codec
    sha256: str


@dataclass(frozen=True)
class EvaluationPlan:
    """How much is measured: the main index on all photographs, the other indexes and activation options on fewer.

    Attributes:
        trained: the main index, if it is not to be trained here.
        more_edits: measured beside the fourteen, and in no average.
        transfer: the same photographs and references by another extractor, which searches for what was activated.
        transfer_factory: the index that is trained for it.
        indexes_only: leaves out other activation options, strengths and recompression.
    """

    main: str
    others: Sequence[str]
    trained: Trained | None
    more_edits: Mapping[str, Edit]
    others_count: int = 200
    strengths_count: int = 100
    transfer: Subject | None = None
    transfer_factory: str = ""
    indexes_only: bool = False

    @property
    def edits(self) -> dict[str, Edit]:
        return {**EDITS, **self.more_edits}


class Evaluation:
    """Measures one table after the other into :attr:`findings`; what takes long is kept in `folder`, by codec and
    options, so that a second run of the same command goes on."""

    def __init__(self, subject: Subject, plan: EvaluationPlan, folder: Path, seed: int, progress: Progress) -> None:
        self.findings = Findings()
        self._subject = subject
        self._plan = plan
        # A collection may have another codec the next time, under the same factory string.
        self._folder = folder / plan.trained.sha256[:12] if plan.trained else folder
        self._seed = seed
        self._progress = progress
        self._codecs: dict[str, tuple[Codec, Codes]] = {}

    def run(self) -> Findings:
        self._main()
        if not self._plan.indexes_only:
            self._variants()
            self._strengths()
            self._released()
        self._transferred()
        self._other_indexes()
        return self.findings

    @property
    def published(self) -> list[Photograph]:
        """The registered photographs as they were published for the main index."""
        return self._published(self._plan.main, _PLAIN, self._subject.registered).photographs

    # ── tables ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _main(self) -> None:
        """R@1 by edit and copy detection: no index, and the main index by nprobe, passive and activated."""
        subject, main, originals = self._subject, self._plan.main, self._originals
        copies = self._copies("passive", subject.registered)
        exact = exact_first_matches(subject.references, originals, _stacked(copies))
        vectors = len(subject.references) + len(originals)
        self.findings.recall.append(recall_row(FLAT, 0, found_by_edit(exact, copies), activated=False))
        self.findings.searches.append(SearchRow(FLAT, 0, vectors, exact.ms, 4 * originals.shape[1]))
        self._main_by_nprobe(self._codec(main)[0].encode(originals), copies, activated=False)
        published = self._published(main, _PLAIN, subject.registered)
        self.findings.images = published.images
        copies = self._copies(_key(main, _PLAIN), published.photographs)
        self._main_by_nprobe(published.codes, copies, activated=True)

    def _main_by_nprobe(self, registered: Codes, copies: Copies, *, activated: bool) -> None:
        """R@1 by nprobe; and detection at nprobe 1: copies in all fourteen edits, and unregistered images."""
        codec, references = self._codec(self._plan.main)
        index = Index(codec, references, registered)
        first = self._measure(self._plan.main, index, copies, _NPROBES, activated=activated)
        unrelated = index.first_matches(self._unrelated, 1)
        right = np.tile(np.arange(len(registered)), len(EDITS))
        self.findings.detections[activated] = detect(first.part(len(right)), right, unrelated)
        contents = Contents(codec, np.concatenate([registered, references]), len(registered))
        of_edits = _stacked({edit: copies[edit] for edit in EDITS})
        self.findings.verdicts += verdict_rows(
            self._plan.main, self._calibration, contents, of_edits, self._unrelated, activated=activated
        )
        self._ranks(index, copies, activated=activated)
        self._geometry(codec, registered, copies, unrelated, activated=activated)

    def _ranks(self, index: Index, copies: Copies, *, activated: bool) -> None:
        """R@1, R@10 and R@100, and the paper's own detection protocol, at nprobe 1 and 16."""
        main, of_edits = self._plan.main, _stacked({edit: copies[edit] for edit in EDITS})
        for nprobe in _TABLE_NPROBES if self._codec(main)[0].has_cells else (1,):
            found = index.candidates(of_edits, nprobe, DEPTH)
            photographs = len(copies["identity"])
            self.findings.ranks += rank_rows(main, nprobe, found, photographs, activated=activated)
            random, unrelated = (index.candidates(f, nprobe, DEPTH) for f in (copies["random"], self._unrelated))
            self.findings.pairs += all_pairs(main, nprobe, random, unrelated, activated=activated)

    def _geometry(
        self, codec: Codec, registered: Codes, copies: Copies, unrelated: FirstMatches, *, activated: bool
    ) -> None:
        """Cells that copies leave, and distances from codes."""
        main, of_edits = self._plan.main, {edit: copies[edit] for edit in EDITS}
        self.findings.cells += cells_left(main, codec, registered, copies, activated=activated)
        if has_distances(main):
            self.findings.distances += distances_of(codec, registered, of_edits, unrelated, activated=activated)

    def _variants(self) -> None:
        """Ten steps, one step, and robust, on the same photographs."""
        some = self._subject.registered[: self._plan.others_count]
        for variant, options in (
            ("10 steps", _PLAIN), ("1 step", ActivationOptions(steps=1)), ("robust", ActivationOptions(robust=True)),
        ):  # fmt: skip
            self.findings.variants.append(self._variant(variant, options, some))

    def _strengths(self) -> None:
        """The perceptual mask against an equal bound for all pixels, at several strengths."""
        some = self._subject.registered[: self._plan.strengths_count]
        for attenuation, alphas in _STRENGTHS:
            for alpha in alphas:
                options = ActivationOptions.model_validate({"alpha": alpha, "attenuation": attenuation})
                self.findings.strengths.append(self._variant(attenuation, options, some))

    def _released(self) -> None:
        """Recompressed or scaled down before release, passive and activated."""
        main, some = self._plan.main, self._subject.registered[: self._plan.strengths_count]
        codec, references = self._codec(main)
        published = self._published(main, _PLAIN, self._subject.registered)
        sides = (
            ("passive", some, codec.encode(self._originals[: len(some)])),
            (_key(main, _PLAIN), published.photographs[: len(some)], published.codes[: len(some)]),
        )
        for name, release in ((AS_IT_IS, EDITS["identity"]), *RELEASES.items()):
            figures: list[float] = []
            for key, photographs, codes in sides:
                copies = self._copies(f"{key}-{_digest([name])}", photographs, released(release))
                first = Index(codec, references, codes).first_matches(_stacked(copies), 1)
                by_photograph = np.mean(list(found_by_edit(first, copies).values()), axis=0)
                figures += [float(by_photograph.mean()), *bootstrap(by_photograph)]
            self.findings.released.append(ReleaseRow(name, len(some), *figures))

    def _transferred(self) -> None:
        """What was activated for one extractor, registered and searched for with another."""
        other = self._plan.transfer
        if other is None:
            return
        factory, name = self._plan.transfer_factory, other.engine.extractor.identity.sha256[:12]
        codec = Codec.train(factory, training_sample(other.training))
        references = encode_all(codec, other.references)
        published = self._published(self._plan.main, _PLAIN, self._subject.registered).photographs
        count = self._plan.strengths_count
        for activated, photographs in ((False, self._subject.registered[:count]), (True, published[:count])):
            key = _key(self._plan.main, _PLAIN) if activated else "passive"
            path = self._folder / "copies" / f"{key}-by-{name}.f32"
            told = partial(self._progress, f"editing {key} for {name}", total=count)
            copies = copies_of(photographs, other.engine, other.limits, EDITS, path, self._seed, told)
            index = Index(codec, references, codec.encode(np.asarray(copies["identity"])))
            found = found_by_edit(index.first_matches(_stacked(copies), 1), copies)
            self.findings.transfers.append(recall_row(factory, 1, found, activated=activated))

    def _other_indexes(self) -> None:
        """The other indexes, passive and activated, on fewer photographs."""
        some = self._subject.registered[: self._plan.others_count]
        passive = _head(self._copies("passive", self._subject.registered), len(some))
        for factory in self._plan.others:
            codec, references = self._codec(factory)
            index = Index(codec, references, codec.encode(self._originals[: len(some)]))
            self._measure(factory, index, passive, _TABLE_NPROBES, activated=False)
            published = self._published(factory, _PLAIN, some)
            copies = self._copies(_key(factory, _PLAIN), published.photographs)
            index = Index(codec, references, published.codes)
            self._measure(factory, index, copies, _TABLE_NPROBES, activated=True)
            del self._codecs[factory]  # a million codes of whole features are gigabytes

    # ── what the tables are computed from ────────────────────────────────────────────────────────────────────────────

    @cached_property
    def _originals(self) -> Features:
        """(N, D) of the registered photographs as they are."""
        return features_of(self._subject.registered, self._subject.engine, self._subject.limits)

    @cached_property
    def _unrelated(self) -> Features:
        """(M, D) of unregistered images, edited."""
        edits = {"identity": EDITS["identity"]} if self._subject.edited else EDITS
        return _stacked(self._copies("unrelated", self._subject.unrelated, edits))

    @cached_property
    def _calibration(self) -> Calibration:
        """Of verdicts by the main index: on the references, none of which is one of the unrelated images."""
        return calibrated_on(self._codec(self._plan.main)[0], self._subject.references, self._codec(self._plan.main)[1])

    def _codec(self, factory: str) -> tuple[Codec, Codes]:
        """A codec, trained for this run unless one was given, and the references' codes."""
        if factory not in self._codecs:
            given = self._plan.trained
            codec = given.codec if given and factory == given.factory else self._trained(factory)
            self._codecs[factory] = codec, encode_all(codec, self._subject.references)
        return self._codecs[factory]

    def _trained(self, factory: str) -> Codec:
        """Trained once: what was published for it holds for these very centroids."""
        path = self._folder / "codecs" / f"{_named(factory)}.faiss"
        if not path.exists():
            sample = training_sample(self._subject.training)
            self._progress(f"training {factory}", 0, len(sample))
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as part:
                Codec.train(factory, sample).write(part)
            self._progress(f"training {factory}", len(sample), len(sample))
        return Codec.read(path, factory)

    def _published(self, factory: str, options: ActivationOptions, photographs: Sequence[Photograph]) -> PublishedSet:
        key = _key(factory, options)
        published = PublishedSet(self._folder / "published" / key, self._codec(factory)[0], options)
        subject, told = self._subject, partial(self._progress, f"activating {key}")
        published.fill(subject.engine, photographs, subject.limits, lambda n: told(n, len(photographs)))
        return published

    def _copies(self, key: str, photographs: Sequence[Photograph], edits: Mapping[str, Edit] | None = None) -> Copies:
        subject, edits = self._subject, edits or self._plan.edits
        path = self._folder / "copies" / f"{key}-{_digest(edits)}.f32"
        told = partial(self._progress, f"editing {key}")
        return copies_of(
            photographs, subject.engine, subject.limits, edits, path, self._seed, lambda n: told(n, len(photographs))
        )

    def _measure(
        self, factory: str, index: Index, copies: Copies, nprobes: Sequence[int], *, activated: bool
    ) -> FirstMatches:
        """R@1 and, for passive images, the time of a search; returns the first matches at nprobe 1."""
        codec, _ = self._codec(factory)
        queries = _stacked(copies)
        matches = {}
        for nprobe in nprobes if codec.cell_size else (1,):
            first = matches[nprobe] = index.first_matches(queries, nprobe)
            self.findings.recall.append(recall_row(factory, nprobe, found_by_edit(first, copies), activated=activated))
            if not activated and nprobe in _TABLE_NPROBES:
                self.findings.searches.append(SearchRow(factory, nprobe, len(index), first.ms, codec.code_size))
            if not activated and first.spread:
                self.findings.times.append(TimeRow(factory, nprobe, len(queries), first.ms, *first.spread))
            self._progress(f"searching {factory}", len(matches) * len(queries), len(nprobes) * len(queries))
        return matches[1]

    def _variant(self, variant: str, options: ActivationOptions, photographs: Sequence[Photograph]) -> VariantRow:
        """One set of options, on the main index; photographs that were activated with them already are not again."""
        main = self._plan.main
        codec, references = self._codec(main)
        published = self._published(main, options, photographs)
        images = published.images[: len(photographs)]
        copies = _head(self._copies(_key(main, options), published.photographs), len(images))
        copies = {name: copies[name] for name in EDITS}
        first = Index(codec, references, published.codes[: len(images)]).first_matches(_stacked(copies), 1)
        by_photograph = np.mean(list(found_by_edit(first, copies).values()), axis=0)
        return variant_row(variant, options.alpha, by_photograph, images)


def _stacked(copies: Copies) -> Features:
    """(E·N, D): the copies of all edits, one edit after the other."""
    return np.concatenate(list(copies.values()))


def _head(copies: Copies, count: int) -> Copies:
    return {name: features[:count] for name, features in copies.items()}


def _digest(names: Iterable[str]) -> str:
    return sha256_hex("\n".join(names).encode())[:8]


def _key(factory: str, options: ActivationOptions) -> str:
    """A folder's name for a codec and activation options."""
    chosen = f"{options.steps}-{options.attenuation}-{options.alpha:g}{_ROBUST if options.robust else ''}"
    return f"{_named(factory)}-{chosen}"


def _named(factory: str) -> str:
    return factory.replace(",", "_")
