"""``aii index retrain``."""

from __future__ import annotations

import re
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tasks.command_line import EXIT_FAILED, Command, FilePath, FiniteRange, progress_bar
from tasks.errors import InvalidRequest
from tasks.files import write_atomically
from tasks.names import DIGEST_PATTERN
from tasks.output_files import check_output, force_option, write_output
from tasks.settings import load_settings
from tasks.state_folder import state_dir
from workers.commands.index_published import published
from workers.index.collection.opened import Opened, open_collection

if TYPE_CHECKING:
    from workers.activation.comparison import Compared
    from workers.extractors.base import Extractor
    from workers.index.collection.manifest import Manifest
    from workers.index.maintenance.activations import Activations
    from workers.index.maintenance.retrain import Candidate, Current, Originals
    from workers.index.verdicts.calibration import Calibration

__all__ = ["retrain"]


@dataclass(frozen=True)
class _Asked:
    """What the next codec has to satisfy, as the options of the command say."""

    sample: int
    least_gain: float
    accept_off: float
    audited: int
    csv_path: Path | None


@click.command(cls=Command)
@click.argument("name")
@click.option("--factory", help="FAISS factory string of the next index; default: by the number of images.")
@click.option(
    "--sample", default=200, show_default=True, type=click.IntRange(1),
    help="Images whose edited copies are searched with both codecs.",
)  # fmt: skip
@click.option(
    "--least-gain", default=0.0, show_default=True, type=FiniteRange(-1, 1),
    help="Give up when R@1 of these copies, at the collection's nprobe or the nearest measured, gains less.",
)  # fmt: skip
@click.option(
    "--accept-off", default=0.0, show_default=True, type=FiniteRange(0, 1),
    help="Share of the published protected images that may be off their codes with the next codec.",
)  # fmt: skip
@click.option(
    "--audit", "audited", default=2_000, show_default=True, type=click.IntRange(1),
    help="How many protected images are drawn to tell that share by.",
)  # fmt: skip
@click.option("--csv", "csv_path", type=FilePath(dir_okay=False), help="File for the asset ids of those that are off.")
@force_option
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
def retrain(name: str, factory: str | None, dry_run: bool, force: bool, **asked: Any) -> None:
    """Train the index of the collection NAME again, on the images that it holds now, and switch to it.

    Features are those that the collection stores, else they are extracted from the originals, as jobs. Workers answer
    with the present codec meanwhile; compactions wait from training on. An image that was published protected keeps its
    asset, but what its activation gained is lost where it is off its code. Exit status 1 when the present codec stays.
    After an interruption, run it again. `aii index rollback` goes back.
    """
    from workers.index.maintenance.build import suggested_factory  # noqa: PLC0415  # loads FAISS
    from workers.index.maintenance.retrain import Originals  # noqa: PLC0415
    from workers.index.maintenance.starter import NAME as STARTER  # noqa: PLC0415

    if name == STARTER:
        raise InvalidRequest(
            "Of the starter collection's references only codes are known, which no other codec can be calibrated for: "
            "make a collection of your own with `aii index build`."
        )
    check_output(asked["csv_path"], force=force)
    opened = open_collection(load_settings(), name)
    manifest = opened.files.current()
    chosen = factory or suggested_factory(manifest.assets, manifest.extractor.dimension)
    if dry_run:
        _tell(opened, manifest, chosen)
        return
    originals = Originals({}, {}, []) if manifest.features else _from_originals(opened, manifest)
    if not _retrained(opened, chosen, originals, _Asked(**asked)):
        sys.exit(EXIT_FAILED)
    for what in ("retraining", "originals"):
        _scratch(opened, what).unlink(missing_ok=True)
    for digest in originals.objects:
        opened.files.delete_features(digest)


def _tell(opened: Opened, manifest: Manifest, factory: str) -> None:
    from workers.index.codec.trainable import check_trainable  # noqa: PLC0415
    from workers.index.maintenance.gather import CHUNK  # noqa: PLC0415

    click.echo(f"present   {manifest.factory}, {manifest.assets:,} images")
    click.echo(f"next      {factory}")
    check_trainable(factory, manifest.extractor.dimension, manifest.assets, "images")
    size = 4 * manifest.extractor.dimension * manifest.assets
    if manifest.features:
        click.echo("features  those that the collection stores; no job")
    else:
        digests = _digests(opened, manifest)
        known, without = len(set(digests.values()) - {""}), list(digests.values()).count("")
        click.echo(f"features  of {known:,} originals, {-(-known // CHUNK):,} jobs; {without:,} images have none")
    click.echo(f"disk      {size / 2**20:,.0f} MiB of features in {state_dir() / 'build'}, until the end")


def _digests(opened: Opened, manifest: Manifest) -> dict[str, str]:
    """The digest of the original of each asset: its activation's source, or its name; "" where neither is known."""
    from workers.index.maintenance.listing import assets  # noqa: PLC0415

    with published(opened, manifest, "retrain") as activated:

        def digest(asset_id: str) -> str:
            if activation := activated.get(asset_id):
                return activation.source_sha256
            return asset_id if re.fullmatch(DIGEST_PATTERN, asset_id) else ""

        return {asset.asset_id: digest(asset.asset_id) for asset in assets(opened.files, opened.journal)}


def _from_originals(opened: Opened, manifest: Manifest) -> Originals:
    from workers.index.maintenance.gather import Gatherer  # noqa: PLC0415
    from workers.index.maintenance.retrain import Originals  # noqa: PLC0415

    gatherer = Gatherer(
        opened.store, opened.ledger, opened.sender, opened.files, opened.name, manifest.extractor,
        opened.settings.max_image_bytes,
    )  # fmt: skip
    digests = _digests(opened, manifest)
    with progress_bar("originals", len(digests)) as progress:
        wanted = [digest for digest in dict.fromkeys(digests.values()) if digest]
        gathered = gatherer.extract(wanted, _scratch(opened, "originals"), progress, _run_of(opened))
    row = {digest: number for number, digest in enumerate(gathered.assets)}
    found = {asset: gathered.features[row[digest]] for asset, digest in digests.items() if digest in row}
    return Originals(found, digests, gathered.objects)


def _run_of(opened: Opened) -> str:
    """Names this retraining among others of the collection, until it has switched: an interrupted one finds its jobs
    again, and a later one not those whose features were deleted."""
    path = _scratch(opened, "retraining")
    if not path.exists():
        write_atomically(path, uuid.uuid4().hex)
    return path.read_text()


def _scratch(opened: Opened, what: str) -> Path:
    path = state_dir() / "build" / f"{opened.name}-{what}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _retrained(opened: Opened, factory: str, originals: Originals, asked: _Asked) -> bool:
    """Train, compare, and switch, unless the next codec is refused."""
    from workers.index.codec.gpu import use_gpu  # noqa: PLC0415
    from workers.index.maintenance import retrain as retraining  # noqa: PLC0415
    from workers.index.maintenance import upkeep  # noqa: PLC0415

    extractor = _extractor(opened)
    use_gpu(extractor.device)
    path = _scratch(opened, "features")
    try:
        with opened.write_lock() as lock:
            manifest = upkeep.compact(opened.files, opened.journal, lock.check)
            current = retraining.Current.open(opened.files, manifest)
            with published(opened, manifest, "retrain") as activated:
                sources = ((one.asset_id, one.source_sha256) for one in activated.current())
                features, lost = current.write_features(path, originals.still_of(sources))
                _tell_both(manifest, factory, lost)
                candidate = retraining.train(opened.files, current, features, factory)
                gain = _compared(opened, current, candidate, activated, extractor, asked.sample)
                off = _share_off(opened, candidate, activated, extractor, asked) if activated.current_count else 0.0
            if refusal := _refusal(gain, off, asked):
                click.echo(f"{refusal} Generation {manifest.generation} stays.", err=True)
                return False
            following = retraining.switch(opened.files, opened.journal, current, candidate, lock.check)
            activated.delete()
    finally:
        path.unlink(missing_ok=True)
    click.echo(f"Generation {following.generation} of {opened.name} is current, with {factory}.")
    return True


def _tell_both(manifest: Manifest, factory: str, lost: int) -> None:
    click.echo(f"present    generation {manifest.generation}, {manifest.factory}, {manifest.assets:,} images")
    click.echo(f"next       {factory}; {lost:,} images without a feature keep what their codes say")


def _refusal(gain: float | None, off: float, asked: _Asked) -> str:
    if gain is not None and gain < asked.least_gain:
        return f"R@1 gains {gain:+.3f}, less than {asked.least_gain:+.3f} (--least-gain)."
    if off > asked.accept_off:
        return (
            f"{off:.1%} of the protected images would be off their codes, more than {asked.accept_off:.1%} "
            "(--accept-off): activate and publish them again after the switch, or accept that they are found as "
            "unprotected images are."
        )
    return ""


def _extractor(opened: Opened) -> Extractor:
    from workers.extractors.registry import load_extractor, pick_device  # noqa: PLC0415  # loads torch
    from workers.index.collection.loading import check_extractor  # noqa: PLC0415

    settings = opened.settings
    extractor = load_extractor(settings.extractor, pick_device(settings.device), opened.store)
    check_extractor(opened.name, opened.files.current().extractor, extractor.identity)
    return extractor


def _compared(
    opened: Opened, current: Current, candidate: Candidate, activated: Activations, extractor: Extractor,
    sample: int,
) -> float | None:  # fmt: skip
    """Print recall and thresholds with both codecs; the gain of R@1 at the usual nprobe, None without an image."""
    from workers.activation.comparison import NPROBES, compare  # noqa: PLC0415
    from workers.images import Limits  # noqa: PLC0415

    with progress_bar("images compared") as progress:
        seen = list(
            compare(
                opened.store, current, candidate, activated, extractor, Limits.of(opened.settings), sample, progress
            )
        )
    click.echo(f"{'':<42}{'present':>10}{'next':>10}")
    usual = min(range(len(NPROBES)), key=lambda i: abs(NPROBES[i] - current.manifest.usual_nprobe))
    gain = None
    for what, some in (("all", seen), ("protected", [one for one in seen if one.activated])):
        copies = sum(one.copies for one in some)
        for i, nprobe in enumerate(NPROBES if copies else ()):
            now, then = (sum(found[i] for found in side) / copies for side in _sides(some))
            click.echo(f"{f'R@1 of {copies:,} copies ({what}), nprobe {nprobe}':<42}{now:>10.3f}{then:>10.3f}")
            gain = then - now if what == "all" and i == usual else gain
    for nprobe in NPROBES:
        both = (current.manifest.calibration, candidate.new.calibration)
        before, after = (_threshold(one, nprobe, current.manifest.assets) for one in both)
        click.echo(f"{f'threshold (score), nprobe {nprobe}':<42}{before:>10}{after:>10}")
    return gain


def _sides(some: Sequence[Compared]) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    return [one.present for one in some], [one.candidate for one in some]


def _threshold(calibration: Calibration | None, nprobe: int, assets: int) -> str:
    value = calibration.threshold(calibration.fpr, nprobe, assets) if calibration else None
    return "none" if value is None else f"{value:.3f}"


def _share_off(
    opened: Opened, candidate: Candidate, activated: Activations, extractor: Extractor, asked: _Asked
) -> float:
    """Print how many published images would be off their codes, and list them; their share."""
    from workers.activation.audit import audit_collection  # noqa: PLC0415
    from workers.images import Limits  # noqa: PLC0415

    limits, codec = Limits.of(opened.settings), candidate.new.codec
    with progress_bar("published images") as progress:
        seen = list(
            audit_collection(opened.store, opened.files, activated, codec, extractor, limits, progress, asked.audited)
        )
    off = [one.asset_id for one in seen if not one.on_candidate]
    if asked.csv_path:
        write_output(asked.csv_path, "".join(f"{asset}\n" for asset in ["asset_id", *off]))
    now = sum(not one.on_code for one in seen)
    click.echo(f"{len(seen):,} protected images compared. Off their codes: {now:,} now, {len(off):,} with the next.")
    return len(off) / max(1, len(seen))
