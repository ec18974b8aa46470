"""R@1 by bytes and nprobe: ``python -m tests.benchmarks.frontier --images DIR --references TAR…``.

Every index is trained on the references, and the photographs are registered beside them; queries are the fourteen
edits. *Passive* for all indexes, *activated* where the optimiser knows where to move an image for such a code.
Intervals are of 95 %, over photographs. With ``--json`` each index is written when it is done, and a second run of the
same command goes on with the others; ``workers/index/codec/frontier.json``, from which ``aii index plan`` recommends,
is such a file.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import click
import faiss
import numpy as np
import torch
from PIL import Image

from tasks.errors import AiiError
from tasks.files import write_atomically
from tasks.messages import ActivationOptions
from tests.benchmarks.recall import LIMITS, Setting, activate, held_out, reference_features
from workers.activation.engine import Engine
from workers.activation.quality import psnr_db
from workers.evaluation.searching import Index, found_by_edit
from workers.evaluation.uncertainty import bootstrap
from workers.extractors.registry import load_extractor
from workers.images import decode
from workers.images.edits import EDITS, edit_seed
from workers.images.folders import image_files
from workers.images.tensors import to_input
from workers.index.codec.codec import Codec, Codes, Features
from workers.index.codec.measured import Measured

NPROBES: Final = (1, 4, 16)
_PACKED: Final = ("fs", "RaBitQ")
# By bytes of the code without its cell; RaBitQ keeps eight bytes of factors beside one bit a dimension. Without a
# rotation, 256 and 512 dimensions cannot be divided into 10, 12 or 24 parts.
FAMILIES: Final = {
    8: ("IVF{c},PQ8x8", "OPQ8_64,IVF{c},PQ8x8", "IVF{c},RQ8x8", "IVF{c},PQ16x4fs"),
    10: ("OPQ10_80,IVF{c},PQ10x8", "IVF{c},RQ10x8"),
    12: ("OPQ12_96,IVF{c},PQ12x8", "IVF{c},RQ12x8"),
    16: ("IVF{c},PQ16x8", "OPQ16_128,IVF{c},PQ16x8", "IVF{c},RQ16x8", "IVF{c},PQ32x4fs", "PCA64,IVF{c},RaBitQ"),
    24: ("OPQ24_192,IVF{c},PQ24x8", "IVF{c},RQ24x8", "PCA128,IVF{c},RaBitQ"),
}


class Kept:
    """Rows of one setting in a JSON file, if there is one; an index is added when all its rows are measured.

    Raises:
        click.UsageError: the file holds rows of another setting.
    """

    def __init__(self, setting: str, path: Path | None) -> None:
        self._setting, self._path = setting, path
        before = json.loads(path.read_text()) if path and path.exists() else {"setting": setting, "rows": []}
        if before["setting"] != setting:
            raise click.UsageError(f"{path} holds rows of {before['setting']}, not of {setting}: name another file.")
        self.rows = [Measured(**row) for row in before["rows"]]

    def __contains__(self, factory: str) -> bool:
        return any(row.factory == factory for row in self.rows)

    def add(self, rows: Sequence[Measured]) -> None:
        self.rows += rows
        if self._path:
            lines = ",\n".join(json.dumps(row.model_dump()) for row in self.rows)
            write_atomically(self._path, f'{{"setting": {json.dumps(self._setting)}, "rows": [\n{lines}\n]}}\n')


@click.command(help=__doc__)
@click.option("--images", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--references", multiple=True, type=click.Path(exists=True, path_type=Path))
@click.option("--features", type=click.Path(path_type=Path), help="A .npy that keeps the references' features.")
@click.option("--hold-out", default=0, help="Use every K-th image only: those the extractor was not trained on.")
@click.option("--count", default=64, show_default=True, help="Images at most.")
@click.option(
    "--cells", type=int, multiple=True, help="Of every index (repeatable); default: what 40 references a cell allow."
)
@click.option(
    "--bytes", "sizes", multiple=True, type=click.Choice([str(size) for size in FAMILIES]), help="Default: all."
)
@click.option(
    "--family", "families", multiple=True, help="A factory string, with {c} for the cells; default: by bytes."
)
@click.option("--extractor", default="compact", show_default=True)
@click.option("--passive-only", is_flag=True, help="Activate nothing.")
@click.option("--json", "json_path", type=click.Path(path_type=Path))
def main(  # one parameter an option
    images: Path,
    references: tuple[Path, ...],
    features: Path | None,
    hold_out: int,
    count: int,
    cells: tuple[int, ...],
    sizes: tuple[str, ...],
    families: tuple[str, ...],
    extractor: str,
    passive_only: bool,
    json_path: Path | None,
) -> None:
    engine = Engine(load_extractor(extractor, torch.device("cpu")))
    chosen = [data for i, (_, data) in enumerate(image_files(images)) if not hold_out or held_out(i, hold_out)]
    known = reference_features(engine, references, features)
    setting = Setting(engine, [decode(data, LIMITS).pixels for data in chosen[:count]], known)
    cells = cells or (2 ** int(np.log2(len(known) / 40)),)
    described = f"{len(setting.originals)} photographs, {len(known):,} references, {extractor}"
    click.echo(f"{described}, {' and '.join(map(str, cells))} cells")
    kept = Kept(described, json_path)
    for row in kept.rows:
        click.echo(_line(row))
    passive = copies_of(setting, setting.originals)
    families = families or tuple(f for size, some in FAMILIES.items() if not sizes or str(size) in sizes for f in some)
    for factory in (family.format(c=count) for count in cells for family in families):
        if factory not in kept:
            rows = list(_measured(setting, factory, passive, activates=not passive_only))
            for row in rows:
                click.echo(_line(row))
            kept.add(rows)


def copies_of(setting: Setting, photographs: Sequence[np.ndarray]) -> Features:
    """(E·N, D): the copies of N photographs, one edit after the other."""
    side, features = setting.engine.extractor.input_size, []
    for edit in EDITS.values():
        inputs = [
            to_input(np.asarray(edit(Image.fromarray(pixels), edit_seed(0, str(i)))), side)
            for i, pixels in enumerate(photographs)
        ]
        features.append(setting.engine.features(torch.stack(inputs)))
    return np.concatenate(features)


def _measured(setting: Setting, factory: str, passive: Features, *, activates: bool) -> Iterator[Measured]:
    if factory.endswith(_PACKED):
        yield from _packed(setting, factory, passive)
        return
    try:
        codec = Codec.train(factory, setting.references)
        references = codec.encode(setting.references)
        yield from _rows(factory, codec, references, codec.encode(_originals(setting)), passive, None)
    except (AiiError, RuntimeError, AttributeError) as error:
        click.echo(f"{factory:<26} is not supported: {str(error).splitlines()[0][:90]}")
        return
    if not activates:
        return
    try:
        published, codes = activate(setting, codec, ActivationOptions())
    except (AiiError, RuntimeError, AttributeError) as error:
        click.echo(f"{factory:<26} cannot be activated for: {str(error).splitlines()[0][:90]}")
        return
    psnr = float(np.mean([psnr_db(a, b) for a, b in zip(setting.originals, published, strict=True)]))
    yield from _rows(factory, codec, references, codes, copies_of(setting, published), psnr)


def _packed(setting: Setting, factory: str, copies: Features) -> Iterator[Measured]:
    """An index whose codes are packed in blocks, which is searched by FAISS itself: passive only."""
    index = faiss.index_factory(copies.shape[1], factory)
    index.train(setting.references)
    index.add(setting.references)
    index.add(_originals(setting))
    ivf, right = faiss.extract_index_ivf(index), len(setting.references) + np.arange(len(setting.originals))
    size = ivf.code_size + ivf.coarse_code_size()
    faiss.omp_set_num_threads(1)
    for nprobe in NPROBES:
        ivf.nprobe = nprobe
        began = time.perf_counter()
        found = np.concatenate([index.search(query[None], 1)[1][0] for query in copies])
        ms = 1000 * (time.perf_counter() - began) / len(copies)
        by_photograph = (found.reshape(len(EDITS), -1) == right).mean(axis=0)
        yield _row(factory, size, nprobe, by_photograph, ms)


def _originals(setting: Setting) -> Features:
    side = setting.engine.extractor.input_size
    return setting.engine.features(torch.stack([to_input(pixels, side) for pixels in setting.originals]))


def _rows(
    factory: str, codec: Codec, references: Codes, registered: Codes, copies: Features, psnr: float | None
) -> Iterator[Measured]:
    index = Index(codec, references, registered)
    for nprobe in NPROBES if codec.has_cells else (1,):
        began = time.perf_counter()
        first = index.first_matches(copies, nprobe)
        ms = first.spread[1] if first.spread else 1000 * (time.perf_counter() - began) / len(copies)
        by_photograph = np.mean(list(found_by_edit(first, EDITS).values()), axis=0)
        yield _row(factory, codec.code_size, nprobe, by_photograph, ms, psnr)


def _row(
    factory: str, size: int, nprobe: int, by_photograph: np.ndarray, ms: float, psnr: float | None = None
) -> Measured:
    recall, (low, high) = float(by_photograph.mean()), bootstrap(by_photograph)
    return Measured(
        factory=factory,
        bytes=size,
        nprobe=nprobe,
        activated=psnr is not None,
        recall=round(recall, 4),
        low=round(low, 4),
        high=round(high, 4),
        ms=round(ms, 4),
        psnr_db=None if psnr is None else round(psnr, 2),
    )


def _line(row: Measured) -> str:
    side = f"activated {row.psnr_db:.1f} dB" if row.psnr_db else "passive"
    interval = f"({row.low:.3f} to {row.high:.3f})"
    place = f"{row.factory:<26}{row.bytes:>3} B  nprobe {row.nprobe:>2}"
    return f"{place}  {side:<18}{row.recall:.3f} {interval}  {row.ms:.3f} ms"


if __name__ == "__main__":
    main()
