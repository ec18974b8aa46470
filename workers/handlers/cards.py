"""The report card of an asset: copies of its original and of its protected file, made here and searched for."""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from PIL import Image

from tasks.errors import InvalidRequest, NotFound
from tasks.ledger.commits import AssetState
from tasks.messages import CardRequest
from tasks.results import CardEdit, CardResult, CardShare
from tasks.results.activation import Quality
from tasks.storage import Bucket
from workers.activation.quality import Pixels, quality
from workers.delivery.job import Running
from workers.difference import AMPLIFIED, difference
from workers.handlers.resources import Resources
from workers.images import decode, pixels_of
from workers.images.tensors import to_input
from workers.index.codec.codec import Features
from workers.index.collection.answers import Answer
from workers.index.collection.collection import Collection
from workers.index.collection.segment import Entry
from workers.index.verdicts.calibration import wilson
from workers.index.verdicts.judge import check_searched, judge

__all__ = ["CardHandler"]

_LONGEST: Final = 1_024  # pixels, of a copy
_SHOWN: Final = 448  # pixels, of the difference
_MOST_CUT: Final = 0.04  # of a side
_SMALLEST: Final = 0.7


@dataclass(frozen=True)
class _Sides:
    """The same of the original (`before`) and of the protected file (`after`)."""

    before: Pixels
    after: Pixels


@dataclass(frozen=True)
class _Pictures:
    """What is kept of both pictures: how they differ, and both at the size of a copy."""

    quality: Quality
    small: _Sides
    difference: str
    input: torch.Tensor


class CardHandler:
    """The work behind the task `card`. Thread-safe."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def card(self, request: CardRequest, running: Running) -> CardResult:
        """Measure an asset.

        Raises:
            NotFound: no such asset is registered, or it has no protected file.
            InvalidRequest: it was activated from another image.
            AiiError: another one of the tree, for an image that cannot be used.
        """
        collection = self._resources.collections.get(request.collection)
        collection.catch_up()
        entry = collection.entry_of(request.asset_id)
        state = collection.look_up(request.asset_id).state
        if entry is None or state is None or not state.protected_key:
            raise NotFound(
                f"Collection {request.collection!r} has no activated asset {request.asset_id!r}: activate it first."
            )
        data, digest = self._resources.image_of(Bucket.ORIGINALS, request.source, running)
        if state.source_sha256 and digest != state.source_sha256:
            raise InvalidRequest(
                f"Asset {request.asset_id!r} was activated from another image, {state.source_sha256[:12]}…: send that."
            )
        pictures = self._pictures(data, state, running)
        feature = self._resources.device.extract(pictures.input)
        passive = Entry(collection.codec.encode(feature[None])[0], collection.stored(feature))
        entries = {"before": passive, "after": entry}
        edits = list(self._edits(request, pictures.small, entries, collection, running))
        return CardResult(
            job_id=running.job_id,
            collection=request.collection,
            generation=collection.manifest.generation,
            asset_id=request.asset_id,
            source_sha256=digest,
            protected_key=state.protected_key,
            protected_sha256=state.protected_sha256,
            extractor=self._resources.extractor,
            quality=pictures.quality,
            found_before=_share(edits, "found_before"),
            found_after=_share(edits, "found_after"),
            matched_before=_share(edits, "matched_before"),
            matched_after=_share(edits, "matched_after"),
            edits=edits,
            difference=pictures.difference,
            amplified=AMPLIFIED,
            uninformative=collection.uninformative(feature),
            options=collection.settled(request.options),
            provenance=running.provenance(),
        )

    def _pictures(self, data: bytes, state: AssetState, running: Running) -> _Pictures:
        """Both pictures are in memory, and in the budget, until this returns."""
        with self._resources.decoded(data, self._resources.budget, running) as original:
            whole = _Sides(original.pixels, self._published(state, original.pixels.shape, running))
            with running.watch.stage("quality"):
                return _Pictures(
                    quality=quality(whole.before, whole.after),
                    small=_Sides(_shrunk(whole.before), _shrunk(whole.after)),
                    difference=_difference(whole),
                    input=to_input(whole.before, self._resources.input_size),
                )

    def _published(self, state: AssetState, shape: tuple[int, ...], running: Running) -> Pixels:
        """The pixels of the protected file; raises InvalidRequest where it is not of the original's size."""
        limit = 4 * self._resources.limits.max_bytes  # as a PNG, a protected photograph can be larger than its source
        with running.watch.stage("fetch"):
            data = self._resources.store.get_verified(
                Bucket.PROTECTED, state.protected_key, state.protected_sha256, limit
            )
        with running.watch.stage("decode"):
            if pixels_of(data, self._resources.limits) != shape[0] * shape[1]:
                raise InvalidRequest("The image is not as large as the protected file: send the asset's original.")
            return decode(data, self._resources.limits).pixels

    def _edits(
        self, request: CardRequest, small: _Sides, entries: dict[str, Entry], collection: Collection, running: Running
    ) -> Iterator[CardEdit]:
        """One edit after the other, each of both pictures with the same draws."""
        from workers.images.edits import EDITS, Edit, edit_seed  # noqa: PLC0415  # torchvision takes long to import

        def copies(pixels: Pixels, edit: Edit) -> Iterator[Pixels]:
            for number in range(request.copies):
                seed = edit_seed(number, request.asset_id)
                yield np.asarray(edit(_handled(Image.fromarray(pixels), seed if number else None), seed))

        for name, edit in EDITS.items():
            running.still_ours()
            counts = {}
            for side, pixels in (("before", small.before), ("after", small.after)):
                features = self._features(copies(pixels, edit), running)
                counts[side] = self._counted(features, entries[side], request, collection, running)
            (found_before, matched_before), (found_after, matched_after) = counts["before"], counts["after"]
            yield CardEdit(
                edit=name, copies=request.copies, found_before=found_before, found_after=found_after,
                matched_before=matched_before, matched_after=matched_after,
            )  # fmt: skip

    def _features(self, copies: Iterator[Pixels], running: Running) -> Features:
        with running.watch.stage("prepare"):
            inputs = [to_input(copy, self._resources.input_size) for copy in copies]
        with running.watch.stage("extract"):
            return np.stack(self._resources.device.extract_all(inputs))

    def _counted(
        self, features: Features, entry: Entry, request: CardRequest, collection: Collection, running: Running
    ) -> tuple[int, int]:
        """How many copies (N, D) are found, and how many are matched, were this the asset's entry."""
        options, asset_id = request.options, request.asset_id
        with running.watch.stage("search"):
            answers = collection.search_many(
                features, options.top_k, options.nprobe, options.where, supposed={asset_id: entry}
            )
        for answer in answers:
            check_searched(answer.evidence)
        first = [answer for answer in answers if answer.matches and answer.matches[0].asset_id == asset_id]
        verdicts = [judge(answer.evidence, options.fpr, options.threshold).verdict for answer in first]
        return sum(map(_is_nearest, first)), verdicts.count("match")


def _share(edits: Sequence[CardEdit], counted: str) -> CardShare:
    count, copies = sum(getattr(edit, counted) for edit in edits), sum(edit.copies for edit in edits)
    low, high = wilson(count, copies)
    return CardShare(share=count / copies, low=low, high=high)


def _is_nearest(answer: Answer) -> bool:
    """Whether no reference is nearer than the first match."""
    other = answer.evidence.nearest_distractor
    return other is None or answer.matches[0].distance < other


def _handled(image: Image.Image, seed: int | None) -> Image.Image:
    """A picture as it might have come by: a little of each side cut off, and scaled down; None leaves it as it is."""
    if seed is None:
        return image
    draw = random.Random(seed)
    width, height = image.size
    left, right = (round(draw.uniform(0, _MOST_CUT) * width) for _ in range(2))
    top, bottom = (round(draw.uniform(0, _MOST_CUT) * height) for _ in range(2))
    scale = draw.uniform(_SMALLEST, 1)
    cut = image.crop((left, top, max(left + 1, width - right), max(top + 1, height - bottom)))
    return cut.resize((max(1, round(scale * cut.width)), max(1, round(scale * cut.height))), Image.Resampling.LANCZOS)


def _shrunk(pixels: Pixels) -> Pixels:
    image = Image.fromarray(pixels)
    image.thumbnail((_LONGEST, _LONGEST), Image.Resampling.LANCZOS)
    return np.asarray(image)


def _difference(whole: _Sides) -> str:
    """See :class:`CardResult`. Amplified before it is shrunk, which would average it away."""
    image = difference(Image.fromarray(whole.before), Image.fromarray(whole.after))
    image.thumbnail((_SHOWN, _SHOWN), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return base64.b64encode(buffer.getvalue()).decode()
