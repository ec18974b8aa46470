"""``aii evaluate``: what would activation buy on these images?"""

from __future__ import annotations

import json
import os
import platform
import resource
import shlex
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from tasks.errors import InvalidRequest
from tasks.settings import load_settings
from tasks.storage import ObjectStore
from workers.index.opened import open_collection

if TYPE_CHECKING:
    from tasks.results import ExtractorIdentity
    from tasks.settings import Settings
    from workers.evaluation.run import Evaluation, Extent, Trained
    from workers.evaluation.subject import Sources, Subject

__all__ = ["evaluate"]

_path = click.Path(exists=True, path_type=Path)
_SHOWN: Final = 6
# A codec needs at least one feature for each of 256 values of a byte, and one for each cell.
_FEWEST: Final = 256


@click.command()
@click.option("--images", "images", multiple=True, type=_path, help="Folder or tar file of images to activate.")
@click.option("--references", multiple=True, type=_path, help="Folder or tar file of what fills the index.")
@click.option("--disc", type=_path, help="Folder in DISC21's layout, instead of both.")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder for the report.")
@click.option("--extractor", help="Name or address of an extractor; default: AII_EXTRACTOR, or `compact`.")
@click.option("--factory", help="The main index, trained here; default: by the number of references.")
@click.option("--index", help="A collection whose trained index is the main one, instead.")
@click.option("--other", "others", multiple=True, help="Another index; default: the paper's families.")
@click.option("--count", type=click.IntRange(2), help="Images at most; default: all.")
@click.option("--queue", is_flag=True, help="Have workers extract the references, as jobs that they share.")
@click.option("--seed", default=0, show_default=True)
def evaluate(
    images: tuple[Path, ...], references: tuple[Path, ...], disc: Path | None, out: Path, **chosen: Any
) -> None:
    """Activate images, edit them, ask for the copies, and write a report with tables, plots and pictures.

    Nothing is registered anywhere. No service is needed, but for --index, and for --queue, which uploads the
    references. Run the same command again after an interruption, and it goes on. The same seed gives the same tables,
    but for milliseconds.
    """
    from workers.evaluation.disc import read_disc  # noqa: PLC0415  # these load torch: not for `aii --help`
    from workers.evaluation.run import Evaluation  # noqa: PLC0415
    from workers.evaluation.subject import Sources  # noqa: PLC0415

    _need_the_extra()
    if bool(disc) == bool(images or references):
        raise click.UsageError("Name either --images and --references, or --disc.")
    sources = read_disc(disc) if disc else Sources(images, references)
    if not sources.references:
        raise InvalidRequest("There is nothing to fill the index with: name --references DIR or TAR.")
    _same_setting_as_before(out, sources, chosen)
    began = time.monotonic()
    subject, extent = _prepared(sources, out, chosen)
    evaluation = Evaluation(subject, extent, out / "state", chosen["seed"], _say)
    evaluation.run()
    _write(evaluation, subject, extent, out, chosen, time.monotonic() - began)
    _print(evaluation, extent)
    click.echo(f"\nReport: {out / 'report.html'}")


def _prepared(sources: Sources, out: Path, chosen: dict[str, Any]) -> tuple[Subject, Extent]:
    """Everything loaded, and refused where it is too little."""
    from workers.activation.engine import Engine  # noqa: PLC0415
    from workers.evaluation.extraction import extract_by_workers, extract_here  # noqa: PLC0415
    from workers.evaluation.run import Extent  # noqa: PLC0415
    from workers.evaluation.subject import read_subject  # noqa: PLC0415
    from workers.extractors.registry import load_extractor, pick_device  # noqa: PLC0415
    from workers.images import Limits  # noqa: PLC0415
    from workers.index.build import suggested_factory  # noqa: PLC0415

    settings = load_settings()
    store = ObjectStore.connect(settings)
    extractor = load_extractor(chosen["extractor"] or settings.extractor, pick_device(settings.device), store)
    limits = Limits(max_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels)
    progress = partial(_say, "extracting references")
    extract = extract_here(extractor, limits, progress)
    if chosen["queue"]:
        extract = extract_by_workers(partial(open_collection, settings), extractor, progress)
    subject = read_subject(Engine(extractor), limits, sources, out / "state", chosen["count"], chosen["seed"], extract)
    if len(subject.training) < _FEWEST:
        raise InvalidRequest(
            f"{len(subject.training)} references are too few to train an index: {_FEWEST} are the least, and 39 for "
            "each cell are better."
        )
    if not subject.unrelated:
        raise InvalidRequest(f"{len(subject.registered)} images are too few: 5 are the least.")
    trained = _trained(chosen["index"], settings, extractor.identity) if chosen["index"] else None
    main = trained.factory if trained else chosen["factory"] or suggested_factory(len(subject.references))
    cells = main.partition(",")[0]
    defaults = [f"{cells},Flat"] if cells.startswith("IVF") else []
    bits = min(64, extractor.dimension)
    others = chosen["others"] or (*defaults, "PQ8x8", f"OPQ8_{bits},PQ8x8", f"PCA{bits},LSH")
    return subject, Extent(main, others, trained)


def _trained(name: str, settings: Settings, extractor: ExtractorIdentity) -> Trained:
    """The index of a collection.

    Raises:
        CollectionMissing, ExtractorMismatch, CorruptSegment: it cannot be used.
    """
    from workers.evaluation.run import Trained  # noqa: PLC0415
    from workers.index.codec import Codec  # noqa: PLC0415
    from workers.index.collection import check_extractor  # noqa: PLC0415

    files = open_collection(settings, name).files
    manifest = files.current()
    check_extractor(name, manifest.extractor, extractor)
    codec = Codec.read(files.fetch(manifest.codec), manifest.factory)
    return Trained(manifest.factory, codec, manifest.codec)


def _write(
    evaluation: Evaluation, subject: Subject, extent: Extent, out: Path, chosen: dict[str, Any], seconds: float
) -> None:
    from PIL import Image  # noqa: PLC0415

    from workers.evaluation.report import write_report  # noqa: PLC0415
    from workers.evaluation.tables import write_tables  # noqa: PLC0415

    write_tables(evaluation.findings, out)
    shown = []
    for original, published, image in zip(
        subject.registered[:_SHOWN], evaluation.published[:_SHOWN], evaluation.findings.images, strict=False
    ):
        before, after = (Image.fromarray(p.decoded(subject.limits).pixels) for p in (original, published))
        shown.append((original.name, before, after, image.psnr_db, image.ssim))
    setting = _setting(subject, extent, chosen, seconds)
    write_report(out / "report.html", evaluation.findings, extent, setting, shown, subject.skipped)


def _setting(subject: Subject, extent: Extent, chosen: dict[str, Any], seconds: float) -> dict[str, str]:
    import importlib.metadata  # noqa: PLC0415

    import torch  # noqa: PLC0415

    extractor, device = subject.engine.extractor.identity, subject.engine.extractor.device
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{cores} cores, {platform.machine()}"
    names = ("active-image-indexing", "torch", "torchvision", "pillow", "numpy")
    return {
        "extractor": f"{extractor.name}, {extractor.dimension}-d, sha256 {extractor.sha256}",
        "main index": extent.main,
        "images": f"{len(subject.registered):,} registered, {len(subject.unrelated):,} unrelated",
        "images for the other indexes and ways": f"the first {extent.others_count}; {extent.strengths_count} for masks",
        "references": f"{len(subject.references):,}",
        "hardware": hardware,
        "versions": ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names),
        "seed": str(chosen["seed"]),
        "command": shlex.join(["aii", *sys.argv[1:]]),
        "time": f"{seconds / 60:.1f} minutes of this run; what was found done is not in it",
        "memory": f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MiB at most",
    }


def _print(evaluation: Evaluation, extent: Extent) -> None:
    """The main table."""
    click.echo(f"\n{'index':<28}{'passive':>9}{'activated':>11}")
    findings = evaluation.findings
    main = [(extent.main, nprobe) for nprobe in findings.nprobes_of(extent.main)]
    for index, nprobe in (("Flat", 0), *main, *((other, 1) for other in extent.others)):
        rows = [r for r in findings.recall if (r.index, r.nprobe) == (index, nprobe)]
        shares = {row.activated: f"{row.average:.3f}" for row in rows}
        name = "no index" if not nprobe else f"{index}, nprobe {nprobe}"
        click.echo(f"{name:<28}{shares.get(False, ''):>9}{shares.get(True, ''):>11}")
    areas = {a: f"{found.average_precision:.3f}" for a, found in findings.detections.items()}
    click.echo(f"{'μAP, ' + extent.main:<28}{areas[False]:>9}{areas[True]:>11}")
    for row in findings.ways:
        click.echo(f"{row.way:<28}{'':>9}{row.recall_at_1:>11.3f}   {row.psnr_db:.2f} dB  {row.ms_per_image:.1f} ms")


def _same_setting_as_before(out: Path, sources: Sources, chosen: dict[str, Any]) -> None:
    """What is kept in the folder belongs to one setting.

    Raises:
        InvalidRequest: the folder holds an evaluation of something else.
    """
    paths = [[str(p.absolute()) for p in part] for part in (sources.photographs, sources.references, sources.training)]
    setting = json.dumps({"paths": paths, **chosen}, sort_keys=True)
    note = out / "state" / "setting.json"
    if note.exists() and note.read_text() != setting:
        raise InvalidRequest(f"{out} holds an evaluation of something else: name another folder with --out.")
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(setting)


def _need_the_extra() -> None:
    try:
        import matplotlib  # noqa: F401, PLC0415
    except ModuleNotFoundError:
        raise click.UsageError(
            "`aii evaluate` draws with matplotlib: pip install 'active-image-indexing[worker,evaluation]'."
        ) from None


def _say(what: str, count: int) -> None:
    """A line that counts, on a terminal; otherwise nothing."""
    if sys.stderr.isatty():
        click.echo(f"\r\x1b[K{what}: {count:,}", nl=False, err=True)
