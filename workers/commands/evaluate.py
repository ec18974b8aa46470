"""``aii evaluate``: what would activation buy on these images?"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from tasks.command_line import Command, FilePath
from tasks.errors import InvalidRequest
from tasks.output_files import check_folder, force_option, refuse_existing
from tasks.settings import Settings, load_settings
from tasks.storage import ObjectStore
from workers.evaluation.report.terminal import Progress, print_main_table, print_skipped
from workers.index.collection.opened import open_collection

if TYPE_CHECKING:
    from tasks.results import ExtractorIdentity
    from workers.evaluation.run import Evaluation, EvaluationPlan, Trained
    from workers.evaluation.subject import Sources, Subject
    from workers.images.edits import Edit

__all__ = ["evaluate"]

_path = FilePath(exists=True)
_SHOWN: Final = 6
_PAGE: Final = "report.html"
_SETTING: Final = "setting.json"  # in the folder's `state`: what the evaluation there was made of


@click.command(cls=Command)
@click.option("--images", "images", multiple=True, type=_path, help="Folder or tar file of images to activate.")
@click.option("--references", multiple=True, type=_path, help="Folder or tar file of what fills the index.")
@click.option("--disc", type=_path, help="Folder in DISC21's layout, instead of both.")
@click.option("--out", required=True, type=FilePath(file_okay=False), help="Folder for the report.")
@click.option("--extractor", help="Name or address of an extractor; default: AII_EXTRACTOR, or `compact`.")
@click.option("--factory", help="The main index, trained here; default: the paper's, by the number of references.")
@click.option("--index", help="A collection whose trained index is the main one, instead.")
@click.option(
    "--other", "others", multiple=True,
    help="Another index; default: that of `aii index build`, and the paper's families.",
)  # fmt: skip
@click.option(
    "--indexes-only", is_flag=True,
    help="Leave out other activation options, strengths and recompression: a quarter of the time.",
)  # fmt: skip
@click.option("--count", type=click.IntRange(2), help="Images at most; default: all.")
@click.option(
    "--hold-out", default=1, type=click.IntRange(1), metavar="K",
    help="Use every K-th image only: those that the extractor was not trained on.",
)  # fmt: skip
@click.option(
    "--edits", "edit_set", type=click.Choice(["paper", "today"]), default="paper", show_default=True,
    help="With `today`, edits of today's tools, screens and chat programs too, beside the fourteen.",
)  # fmt: skip
@click.option("--transfer", help="Name or address of another extractor, which searches for what was activated.")
@click.option("--augly", is_flag=True, help="Measure AugLy's random edits, the paper's, beside the fourteen.")
@click.option("--queue", is_flag=True, help="Have workers extract the references, as jobs that they share.")
@click.option(
    "--fast-references", is_flag=True,
    help="Have ONNX Runtime extract the references, in the precision of the extractor's ONNX file.",
)  # fmt: skip
@click.option("--seed", default=0, show_default=True)
@force_option
def evaluate(
    images: tuple[Path, ...], references: tuple[Path, ...], disc: Path | None, out: Path, force: bool, **chosen: Any
) -> None:
    """Activate images, edit them, search for the copies, and write a report with tables, plots and pictures.

    Nothing is registered anywhere. No service is needed, but for --index, and for --queue, which uploads the
    references. Run the same command again after an interruption, and it goes on. The same seed gives the same tables,
    but for milliseconds.
    """
    # Two photographs are worked on at once: threads that spin between two operations would take each other's cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from workers.evaluation.run import Evaluation  # noqa: PLC0415  # loads torch: not for `aii --help`

    _need_the_extra()
    if bool(disc) == bool(images or references):
        raise click.UsageError("Name either --images and --references, or --disc.")
    if chosen["queue"] and chosen["fast_references"]:
        raise click.UsageError("Workers compute with the extractor itself: leave out --queue or --fast-references.")
    _check_out(out, force=force)
    began, progress = time.monotonic(), Progress()
    subject, plan = _prepared(_sources(images, references, disc, chosen["hold_out"]), out, chosen, progress)
    print_skipped(subject.skipped)
    evaluation = Evaluation(subject, plan, out / "state", chosen["seed"], progress)
    evaluation.run()
    _write(evaluation, subject, plan, out, chosen["seed"], time.monotonic() - began)
    print_main_table(evaluation.findings, plan)
    click.echo(f"\nReport: {out / _PAGE}")


def _check_out(out: Path, *, force: bool) -> None:
    """Raise UsageError where the folder cannot be written, or has files of a report's names that no evaluation left."""
    from workers.evaluation.findings import TABLES  # noqa: PLC0415

    check_folder(out)
    if not (force or (out / "state" / _SETTING).exists()):
        refuse_existing([out / _PAGE, *(out / f"{name}.csv" for name in TABLES)])


def _sources(images: tuple[Path, ...], references: tuple[Path, ...], disc: Path | None, every: int) -> Sources:
    from workers.evaluation.disc import read_disc  # noqa: PLC0415
    from workers.evaluation.subject import Sources  # noqa: PLC0415

    if disc:
        return read_disc(disc)
    if not references:
        raise InvalidRequest("There is nothing to fill the index with: name --references DIR or TAR.")
    return Sources(images, references, every=every)


def _prepared(
    sources: Sources, out: Path, chosen: dict[str, Any], progress: Progress
) -> tuple[Subject, EvaluationPlan]:
    """Everything loaded, and refused where it is too little: before any work, as far as that is known then."""
    from workers.activation.engine import Engine  # noqa: PLC0415
    from workers.evaluation import setting  # noqa: PLC0415
    from workers.evaluation.extraction import extract_by_workers, extract_here  # noqa: PLC0415
    from workers.evaluation.run import EvaluationPlan  # noqa: PLC0415
    from workers.evaluation.subject import read_photographs, read_subject  # noqa: PLC0415
    from workers.extractors.onnx_runtime import OnnxRuntime  # noqa: PLC0415
    from workers.extractors.registry import load_extractor, pick_device  # noqa: PLC0415
    from workers.images import Limits  # noqa: PLC0415
    from workers.images.folders import listing_digest  # noqa: PLC0415
    from workers.index.codec.gpu import use_gpu  # noqa: PLC0415

    settings, more_edits = load_settings(), _more_edits(chosen["edit_set"], augly=chosen["augly"])
    store = ObjectStore.connect(settings)
    named = chosen["extractor"] or settings.extractor
    extractor = load_extractor(named, pick_device(settings.device), store, precision=settings.precision)
    source = OnnxRuntime(named, extractor, store) if chosen["fast_references"] else extractor
    use_gpu(extractor.device)
    trained = _trained(chosen["index"], settings, extractor.identity) if chosen["index"] else None
    _, listed = listing_digest(sources.training or sources.references)
    _indexes(chosen, trained, extractor.dimension, listed)
    limits = Limits.of(settings)
    photographs = read_photographs(
        sources, limits, chosen["count"], chosen["seed"], lambda done, total: progress("reading images", done, total)
    )
    state = out / "state"
    note = setting.note_of(sources, photographs, extractor, source, chosen["seed"])
    setting.check_note(state / _SETTING, note)
    told = partial(_told, progress, listed)
    extract = extract_here(source, limits, told)
    if chosen["queue"]:
        extract = extract_by_workers(partial(open_collection, settings), extractor, told)
    subject = read_subject(Engine(extractor), limits, sources, photographs, state, extract)
    main, others = _indexes(chosen, trained, extractor.dimension, len(subject.training))
    setting.write_note(state / _SETTING, note)
    plan = EvaluationPlan(main, others, trained, more_edits, indexes_only=chosen["indexes_only"])
    if not chosen["transfer"]:
        return subject, plan
    second = load_extractor(chosen["transfer"], pick_device(settings.device), store, precision=settings.precision)
    folder = state / f"by-{second.sha256[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    other = read_subject(Engine(second), limits, sources, photographs, folder, extract_here(second, limits, told))
    factory = _paper_index(len(other.training), second.dimension)
    return subject, replace(plan, transfer=other, transfer_factory=factory)


def _indexes(
    chosen: Mapping[str, Any], trained: Trained | None, dimension: int, count: int
) -> tuple[str, tuple[str, ...]]:
    """The main index and the others.

    Raises:
        InvalidRequest: one of them cannot be trained on features of `count` images.
    """
    from workers.evaluation.run import FLAT  # noqa: PLC0415
    from workers.index.codec.plan import BYTE_CENTROIDS, product_bytes  # noqa: PLC0415
    from workers.index.codec.trainable import check_trainable  # noqa: PLC0415
    from workers.index.maintenance.build import suggested_factory  # noqa: PLC0415

    usual = _paper_index(count, dimension)
    bits, parts = min(64, dimension), product_bytes(dimension)
    main = trained.factory if trained else chosen["factory"] or usual
    cells = (usual if trained or not main.startswith("IVF") else main).partition(",")[0]
    built = suggested_factory(max(count, BYTE_CENTROIDS), dimension)  # what `aii index build` would choose
    defaults = (built, f"{cells},Flat", f"PQ{parts}x8", f"OPQ{parts}_{bits},PQ{parts}x8", f"PCA{bits},LSH")
    wanted = chosen["others"] or defaults
    others = tuple(dict.fromkeys(other for other in wanted if other != main))
    if FLAT in (main, *others):
        raise InvalidRequest(f"{FLAT} compares whole features, as the row `no index` does already: name another index.")
    for factory in others if trained else (main, *others):
        check_trainable(factory, dimension, count, "references")
    return main, others


def _paper_index(count: int, dimension: int) -> str:
    """The paper's main index for `count` references."""
    from workers.index.codec.plan import BYTE_CENTROIDS, paper_cells, product_bytes  # noqa: PLC0415

    return f"IVF{paper_cells(max(count, BYTE_CENTROIDS))},PQ{product_bytes(dimension)}x8"


def _told(progress: Progress, total: int, done: int) -> None:
    progress("extracting references", done, max(done, total))


def _more_edits(edit_set: str, *, augly: bool) -> Mapping[str, Edit]:
    from workers.images.edits import MORE_EDITS  # noqa: PLC0415  # loads torchvision
    from workers.images.edits_today import TODAY  # noqa: PLC0415

    more = {**MORE_EDITS, **(TODAY if edit_set == "today" else {})}
    if not augly:
        return more
    from workers.evaluation.augly_edits import augly_random  # noqa: PLC0415  # needs the library and libmagic

    return {**more, "augly": augly_random}


def _trained(name: str, settings: Settings, extractor: ExtractorIdentity) -> Trained:
    """The index of a collection.

    Raises:
        CollectionMissing, ExtractorMismatch, CorruptSegment: it cannot be used.
    """
    from workers.evaluation.run import Trained  # noqa: PLC0415
    from workers.index.codec.codec import Codec  # noqa: PLC0415
    from workers.index.collection.loading import check_extractor  # noqa: PLC0415

    files = open_collection(settings, name).files
    manifest = files.current()
    check_extractor(name, manifest.extractor, extractor)
    codec = Codec.read(files.fetch(manifest.codec), manifest.factory)
    return Trained(manifest.factory, codec, manifest.codec)


def _write(
    evaluation: Evaluation, subject: Subject, plan: EvaluationPlan, out: Path, seed: int, seconds: float
) -> None:
    from PIL import Image  # noqa: PLC0415

    from workers.evaluation.findings import write_tables  # noqa: PLC0415
    from workers.evaluation.report.report import write_report  # noqa: PLC0415
    from workers.evaluation.report.sheet import Shown  # noqa: PLC0415
    from workers.evaluation.setting import described  # noqa: PLC0415

    write_tables(evaluation.findings, out)
    shown = []
    for original, published, image in zip(
        subject.registered[:_SHOWN], evaluation.published[:_SHOWN], evaluation.findings.images, strict=False
    ):
        before, after = (Image.fromarray(p.decoded(subject.limits).pixels) for p in (original, published))
        shown.append(Shown(original.name, before, after, image.psnr_db, image.ssim, image.linf))
    setting = described(subject, plan, seed, seconds)
    write_report(out / _PAGE, evaluation.findings, plan, setting, shown, subject.skipped)


def _need_the_extra() -> None:
    try:
        import jinja2  # noqa: F401, PLC0415
        import matplotlib  # noqa: F401, PLC0415
    except ModuleNotFoundError as error:
        raise click.UsageError(
            f"`aii evaluate` needs {error.name} for its report: pip install 'active-image-indexing[worker,evaluation]'."
        ) from None
