"""What is done for activations, stage by stage, in a thread of the lane.

Network, decoding, composing and encoding happen here, one thread an image, while the device computes for others.
"""

from __future__ import annotations

import dataclasses

from tasks.assets.manifests import Manifests, binding_value
from tasks.assets.protected_digests import ProtectedDigests
from tasks.assets.records import AssetRecord, facts_of
from tasks.assets.takedown import SourceDigests
from tasks.ledger.commits import Registration, Seen, conflict_of, joined_code
from tasks.messages import ActivateRequest
from tasks.names import protected_key, sha256_hex
from tasks.results import ActivationResult, Verification
from tasks.storage import Bucket
from workers.activation.engine import Activated
from workers.activation.quality import quality
from workers.delivery.job import Publication, Restoration, Running
from workers.handlers.credentials import Issued
from workers.handlers.protect import Protected, Protector
from workers.handlers.resources import Resources
from workers.images import DecodedImage
from workers.index.collection.collection import Collection
from workers.index.collection.journal import encode_code, journal_meta, named
from workers.index.collection.manifest import Manifest
from workers.index.maintenance.records import record_old_assets


class ImageHandlers:
    """The work behind the task `activate`. Thread-safe."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._digests = ProtectedDigests(resources.store)
        self._manifests = Manifests(resources.store)
        self._sources = SourceDigests(resources.store)
        self._protector = Protector(resources.device, resources.input_size, resources.limits)

    def activate(self, request: ActivateRequest, running: Running) -> Publication:
        """Protect one image and store the file; its asset's new state is committed by the caller.

        Raises:
            AiiError: one of the tree, for an image or a request that cannot be used.
        """
        collection = self._resources.collections.get(request.collection)
        record_old_assets(self._resources.collections, request.collection)
        data, source_digest = self._resources.image_of(Bucket.ORIGINALS, request.source, running)
        asset_id = request.asset_of(source_digest)
        self._refuse_early(collection, request, asset_id, source_digest, running)
        incarnation, (manifest, codec) = collection.incarnation, collection.pinned
        with self._resources.decoded(data, self._resources.budget, running) as original:
            found, protected = self._protector.protect(original, request.options, codec, running.watch, running.wanted)
            with running.watch.stage("quality"):
                measured = quality(original.pixels, protected.decoded.pixels)
        with running.watch.stage("encode"):
            issued = self._issued(request, data, original, asset_id, found, protected)
        encoded = issued.encoded
        digest = sha256_hex(encoded.data)
        key = protected_key(request.collection, asset_id, digest, encoded.extension)
        running.begin_publishing()

        def store(*, assume: bool = False) -> Seen:
            with running.watch.stage("journal"):  # by now, another incarnation may be open than the code is for
                seen = dataclasses.replace(collection.look_up(asset_id, assume=assume), incarnation=incarnation)
            with running.watch.stage("upload"):
                self._resources.store.put(Bucket.PROTECTED, key, encoded.data, encoded.content_type)
                if issued.manifest:
                    self._manifests.put(issued.manifest, issued.store)
            return seen

        def store_again() -> Seen:
            self._resources.collections.check_incarnation(request.collection, incarnation)
            return store()

        seen = store(assume=not collection.holds(asset_id))
        result = ActivationResult(
            status="activated" if protected.verified else "passive",
            job_id=running.job_id,
            collection=request.collection,
            generation=manifest.generation,
            asset_id=asset_id,
            name=request.name,
            source_sha256=source_digest,
            protected_key=key,
            protected_sha256=digest,
            width=original.pixels.shape[1],
            height=original.pixels.shape[0],
            extractor=self._resources.extractor,
            codec=manifest.codec,
            code=encode_code(found.code),
            feature=None if (stored := collection.stored(found.feature)) is None else encode_code(stored),
            journal_entry="",
            meta=request.meta,
            options=request.options,
            quality=measured,
            verification=_verification(protected),
            metadata_lost=list(encoded.lost),
            manifest=issued.manifest,
            uninformative=collection.uninformative(found.feature),
            provenance=running.provenance(),
        )
        return Publication(result, registration_of(result, manifest, replace=request.replace), seen, store_again)

    def _issued(
        self, request: ActivateRequest, source: bytes, original: DecodedImage, asset_id: str, found: Activated,
        protected: Protected,
    ) -> Issued:  # fmt: skip
        """The file with its source's content credentials; one that is to say less than its source says none."""
        if request.options.kept_metadata != "all":
            return Issued(protected.encoded)
        binding = binding_value(request.collection, found.code.tobytes())
        return self._resources.credentials.issue(
            source, original.blocks.manifest, protected.encoded, request.name or asset_id, binding,
            changed=protected.verified,
        )  # fmt: skip

    def _refuse_early(
        self, collection: Collection, request: ActivateRequest, asset_id: str, source_sha256: str, running: Running
    ) -> None:
        """Refuse before the work what can be known before it; the commit decides on an asset that is activated at the
        same time.

        Raises:
            AlreadyProtected: the image is a protected file.
            AssetConflict: the asset is another image.
        """
        self._digests.refuse(source_sha256)
        if asset_id == source_sha256 or request.replace:
            return
        state = collection.look_up(asset_id).state
        other = state and state.source_sha256 not in ("", source_sha256)
        if state and other and not running.leases.may_replace(running.job_id):
            raise conflict_of(asset_id, state.source_sha256, state.job_id)

    def restore_activation(self, result: ActivationResult) -> Restoration | None:
        """What may be taken over of an earlier result; None when its asset is not as it left it any more, or when
        another extractor, or another collection of that name, made it."""
        collection = self._resources.collections.get(result.collection)
        incarnation, (manifest, _) = collection.incarnation, collection.pinned
        if result.extractor != self._resources.extractor or not manifest.has_had(result.codec):
            return None
        record_old_assets(self._resources.collections, result.collection)
        seen = collection.look_up(result.asset_id)
        if seen.state is None or seen.state.job_id != result.job_id:
            return None
        # A record may be all that is left of a commit into a collection that was just being deleted.
        covered = collection.covers(result.journal_entry) and collection.holds(result.asset_id)
        seen = dataclasses.replace(seen, incarnation=incarnation)
        return Restoration(registration_of(result, manifest), result.journal_entry, seen, covered)

    def record_activation(self, result: ActivationResult, commit: int) -> None:
        """Keep a committed activation on record, and its file's digest; `commit` is the number of its document."""
        self._digests.note(result)
        self._manifests.note(result)
        self._sources.note(result)
        self._resources.collections.files(result.collection).assets.put(AssetRecord.of(result, commit))


def _verification(protected: Protected) -> Verification:
    before, after = protected.before, protected.after
    return Verification(
        verified=protected.verified,
        on_code=after.on_code,
        attempts=protected.attempts,
        steps=protected.steps,
        distance_before=before.distance,
        distance_after=after.distance,
        loss_before=before.loss,
        loss_after=after.loss,
    )


def registration_of(result: ActivationResult, manifest: Manifest, *, replace: bool = False) -> Registration:
    """How an activation is written into the journal of its collection, which has this manifest."""
    meta = journal_meta(named(result.meta, result.name))
    code = joined_code(result.code, result.feature, manifest.tag_of(result.codec) if result.codec else "")
    return Registration(result.collection, result.asset_id, code, meta, facts_of(result), replace)
