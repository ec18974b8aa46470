"""What an activation published and registered."""

from __future__ import annotations

from typing import Literal

from pydantic import AliasChoices, ConfigDict, Field

from tasks.messages import ActivationOptions, Digest, Frozen, Metadata
from tasks.results.common import ExtractorIdentity, Provenance


class Quality(Frozen):
    """How far the protected image is from the original, over RGB pixels: `linf` in grey levels (0..255).

    `ssim` is of the images as their authors advise, shrunk to a shorter side of about 256 pixels; `delta_e` is the 99th
    percentile of CIEDE2000 over both at 96 × 96 pixels, of which 1 is just noticeable side by side.
    """

    psnr_db: float | None  # None: the images are identical, the ratio has no upper end
    ssim: float
    linf: int
    delta_e: float | None = Field(default=None, description="documents of version 0.1.0 lack it")


class Verification(Frozen):
    """How near the *encoded* protected image, decoded again, is to the registered code.

    `verified`: it is in the code's coarse cell, so that a search with nprobe 1 reaches the code; it fits the
    code better than the original did (`loss`, what the optimiser lowers: it rises with the distance to the
    code's reconstruction, and with the nearness of other cells); and it keeps the requested PSNR. `on_code`: it is even
    encoded to the same code. Distances are those of a search: squared L2 to the code's reconstruction, or Hamming.
    """

    # Documents of version 0.1.0 call the losses misfits, and programs read them so: the documents keep their names.
    model_config = ConfigDict(serialize_by_alias=True)

    verified: bool
    on_code: bool
    attempts: int
    steps: int
    distance_before: float  # of the original
    distance_after: float  # of the published file, decoded again
    loss_before: float = Field(
        validation_alias=AliasChoices("misfit_before", "loss_before"), serialization_alias="misfit_before"
    )
    loss_after: float = Field(
        validation_alias=AliasChoices("misfit_after", "loss_after"), serialization_alias="misfit_after"
    )


class KeptManifest(Frozen):
    """The C2PA manifest that is kept for an asset: `signed` by this system, in the protected file, or its source's."""

    manifest_id: str
    sha256: Digest = Field(description="of the manifest store")
    signed: bool


class ActivationResult(Frozen):
    """The end of a good activation. `passive` means that no change of the image could be verified: what was published
    is the original picture, which is registered too."""

    status: Literal["activated", "passive"]
    task: Literal["aii.activate"] = "aii.activate"
    job_id: str
    collection: str
    generation: int
    asset_id: str
    name: str = Field(default="", description="the file's own name, when the request had one")
    source_sha256: Digest
    protected_key: str
    protected_sha256: Digest
    width: int
    height: int
    extractor: ExtractorIdentity
    codec: Digest | None = Field(default=None, description="of the collection; documents of version 0.1.0 lack it")
    code: str = Field(description="base64 of the index code, as sa_encode gives it")
    feature: str | None = Field(
        default=None, description="base64 of the original's feature, where the collection keeps features"
    )
    journal_entry: str
    meta: Metadata
    options: ActivationOptions
    quality: Quality
    verification: Verification
    uninformative: bool = Field(
        default=False, description="the image looks like too many different ones for its copies to be recognised"
    )
    metadata_lost: list[str] = Field(
        default_factory=list,
        description="what of the source's metadata, and of further pictures in it, is not published",
    )
    manifest: KeptManifest | None = Field(default=None, description="where the source has one")
    provenance: Provenance
