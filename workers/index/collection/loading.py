"""Opens a generation: downloads what is missing, checks it, and maps it."""

from __future__ import annotations

from tasks.errors import ExtractorMismatch
from tasks.results import ExtractorIdentity
from tasks.shards import Shard
from workers.index.codec.codec import Codec
from workers.index.collection.delta import Delta
from workers.index.collection.files import CollectionStore
from workers.index.collection.finder import Contents
from workers.index.collection.generation import Generation, open_in
from workers.index.collection.journal import Journal
from workers.index.collection.manifest import Manifest, Pointer
from workers.index.collection.pinned import current_manifest
from workers.index.collection.segments import Segments, open_segments
from workers.index.collection.translation import Translation
from workers.index.verdicts.background import Background

__all__ = ["check_extractor", "load_generation"]


def load_generation(
    files: CollectionStore, journal: Journal, pointer: Pointer, manifest: Manifest, old: Generation | None,
    shard: Shard | None = None,
) -> Generation:  # fmt: skip
    """Download missing files, check them, map them; what the old generation has open is not read again.

    Args:
        shard: whose inverted lists alone are needed; None for all.

    Raises:
        CorruptSegment, DiskUnavailable: see :meth:`CollectionStore.fetch`.
    """
    same_codec = old is not None and old.manifest.codec == manifest.codec
    if old and same_codec:
        codec = old.codec
    else:
        codec = Codec.read(files.fetch(manifest.codec), manifest.factory)
        codec.warm()
    parts = manifest.segments
    opened = open_segments(files, manifest, codec, open_in(old) if same_codec else {}, shard)
    assets, distractors = (
        [segment for part, segment in zip(parts, opened, strict=True) if part.distractors == wanted]
        for wanted in (False, True)
    )
    translation = Translation(files, manifest, codec, lambda: current_manifest(files, journal) == manifest)
    return Generation(
        manifest, pointer, codec, translation,
        Contents(Segments(codec, assets), Segments(codec, distractors)), _background(files, manifest, old),
        Delta(codec, manifest.stored), manifest.journal_entry,
    )  # fmt: skip


def _background(files: CollectionStore, manifest: Manifest, old: Generation | None) -> Background | None:
    if old and old.manifest.background == manifest.background:
        return old.background
    if manifest.background is None:
        return None
    background = Background.read(files.fetch(manifest.background))
    background.warm()
    return background


def check_extractor(collection: str, pinned: ExtractorIdentity, extractor: ExtractorIdentity) -> None:
    """Raise ExtractorMismatch unless the collection was built with this very extractor."""
    if pinned != extractor:
        raise ExtractorMismatch(
            f"Collection {collection!r} is pinned to extractor {pinned.name} {pinned.sha256[:12]}, this "
            f"worker holds {extractor.name} {extractor.sha256[:12]}: start a worker with that extractor, or build the "
            "collection again."
        )
