"""Files as cameras write them, and as they are published: ``python -m tests.benchmarks.files --photos DIR``.

Each photograph gets one of eight codings in turn: JPEG of quality 75, 85, 92 or 95, at 4:2:0 or 4:4:4; with EXIF, IPTC
and XMP of the usual length. It is protected as a worker does it. Sizes, verification, R@1 at nprobe 1 of fourteen
edits among the starter collection's references, and the share of the time that metadata take.
"""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import torch
from PIL import Image

from tasks.messages import ActivationOptions
from tests import images_zoo as zoo
from tests.benchmarks.activation import LIMITS, Subject, make_subject, recall_at_1
from workers.activation.quality import quality
from workers.device.device import Device
from workers.handlers.protect import Protector
from workers.images import decode, jpeg
from workers.images.folders import image_files
from workers.images.jpeg_blocks import CAPACITY, with_metadata
from workers.images.metadata import Publishable
from workers.images.model import Pixels
from workers.monitoring.stopwatch import Stopwatch

QUALITIES: Final = (75, 85, 92, 95)
SAMPLINGS: Final = {"4:2:0": 2, "4:4:4": 0}
REPEATS: Final = 20


@dataclass(frozen=True)
class Row:
    """One file: its coding, how many times its size the published one has, and what became of it."""

    coding: str
    growth: float
    verified: bool
    psnr_db: float | None
    metadata_ms: float
    total_ms: float


@click.command(help=__doc__)
@click.option("--photos", required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--count", default=200, show_default=True, type=click.IntRange(1))
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures to this file.")
def main(photos: Path, count: int, json_path: Path | None) -> None:
    torch.set_num_threads(1)
    subject = make_subject("compact", torch.device("cpu"), None)
    device = Device(subject.extractor, batch_images=1, max_extract_delay_s=0.0)
    device.start()
    try:
        rows, found = protect_all(subject, device, islice(camera_files(photos), count))
    finally:
        device.stop()
    figures = summary(rows) | {
        "recall_passive": recall_at_1(subject, [o for o, _, _ in found], [code for _, _, code in found]),
        "recall": recall_at_1(subject, [p for _, p, _ in found], [code for _, _, code in found]),
    }
    for name, value in figures.items():
        click.echo(f"{name:<28}{value}" if isinstance(value, int) else f"{name:<28}{value:.3f}")
    if json_path:
        json_path.write_text(json.dumps(figures, indent=2) + "\n")


def camera_files(photos: Path) -> Iterator[tuple[str, bytes]]:
    """A name for the coding, and the file, of each photograph."""
    codings = list(product(QUALITIES, SAMPLINGS.items()))
    carried = with_usual_metadata()
    for i, (_, data) in enumerate(image_files(photos)):
        number, (sampling, code) = codings[i % len(codings)]
        buffer = io.BytesIO()
        image = Image.open(io.BytesIO(data)).convert("RGB")
        image.save(buffer, "JPEG", quality=number, subsampling=code, optimize=True)
        yield f"{number} {sampling}", with_metadata(buffer.getvalue(), carried)


def with_usual_metadata() -> Publishable:
    """A dozen kilobytes: EXIF with a maker note, IPTC, and XMP with rights."""
    ascii_text = b"(c) Anna Smith, all rights reserved\0"
    note = (zoo.MAKER_NOTE, 7, 8_000, os.urandom(8_000))
    exif = zoo.tiff_block(
        [(zoo.ARTIST, 2, len(ascii_text), ascii_text), (0x8298, 2, len(ascii_text), ascii_text)], exif=[note]
    )
    iptc = zoo.resource(0x0404, b"".join(zoo.data_set(2, number, ascii_text[:-1]) for number in (80, 110, 115, 116)))
    packet = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>" + b" " * 3_000 + b"</x:xmpmeta>"
    assert len(exif) < CAPACITY.exif
    return Publishable(exif=exif, xmp=packet, photoshop=iptc)


def protect_all(
    subject: Subject, device: Device, files: Iterator[tuple[str, bytes]]
) -> tuple[list[Row], list[tuple[Pixels, Pixels, np.ndarray]]]:
    """A row for each file; and original, protected picture and code, for R@1."""
    protector = Protector(device, subject.extractor.input_size, LIMITS)
    rows, found = [], []
    for coding, data in files:
        began = time.perf_counter()
        original = decode(data, LIMITS)
        activated, protected = protector.protect(original, ActivationOptions(), subject.codec, Stopwatch())
        measured = quality(original.pixels, protected.decoded.pixels)
        total_ms = 1000 * (time.perf_counter() - began)
        growth = len(protected.encoded.data) / len(data)
        rows.append(Row(coding, growth, protected.verified, measured.psnr_db, metadata_ms(data), total_ms))
        found.append((original.pixels, protected.decoded.pixels, activated.code))
    return rows, found


def metadata_ms(data: bytes) -> float:
    """What reading a file's metadata, cleaning and writing them takes of a core."""
    frame = jpeg.frame_header(data)
    began = time.process_time()
    for _ in range(REPEATS):
        contents = jpeg.read(data, frame.width * frame.height)
        carried, _ = contents.blocks.publishable("all", CAPACITY)
        with_metadata(contents.picture, carried)
    return 1000 * (time.process_time() - began) / REPEATS


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    growth = [row.growth for row in rows]
    figures: dict[str, Any] = {"images": len(rows), "size_median": np.median(growth)}
    figures |= {"size_95": np.percentile(growth, 95), "size_most": max(growth)}
    for coding in sorted({row.coding for row in rows}):
        figures[f"size_median {coding}"] = np.median([row.growth for row in rows if row.coding == coding])
    figures["verified"] = float(np.mean([row.verified for row in rows]))
    figures["psnr_db"] = float(np.mean([row.psnr_db for row in rows if row.psnr_db]))
    figures["metadata_ms_median"] = float(np.median([row.metadata_ms for row in rows]))
    figures["total_ms_median"] = float(np.median([row.total_ms for row in rows]))
    return figures


if __name__ == "__main__":
    main()
