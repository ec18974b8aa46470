"""The engine against the plain loop: ``python -m tests.benchmarks.activation [--json FILE]``.

Both go from pixels to pixels on the same images, one after the other in one run: the plain loop written straight from
the paper's formula (plain.py), and the engine with everything it does for an image (JND map, shrinking, optimisation in
batches, composition). PSNR and R@1 of both are measured on what they made, so that speed is never bought with quality.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy and torch are loaded, as in workers
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import gc
import io
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import torch
import torchvision.models
from PIL import Image

from tasks.messages import ActivationOptions
from tests.benchmarks.plain import PlainLoop
from tests.photographs import photographs
from workers.activation.compose import compose, prepare
from workers.activation.engine import BATCH_IMAGES, Engine, Work
from workers.activation.quality import psnr_db
from workers.extractors.base import Extractor
from workers.extractors.registry import load_extractor, load_network
from workers.images import Limits, decode
from workers.images.edits import EDITS
from workers.images.folders import image_files
from workers.images.tensors import to_input
from workers.index.codec.codec import Codec, Codes, Features
from workers.index.maintenance import starter

SIZES: Final = {"512": (512, 512), "1024": (1024, 1024), "12mpx": (3000, 4000)}
# How many images are timed: the plain loop takes half a minute for one of twelve megapixels.
COUNTS: Final = {"512": 16, "1024": 8, "12mpx": 2}
LIMITS: Final = Limits(max_bytes=64 * 2**20, max_pixels=100_000_000)
RESNET: Final = "resnet50"
PARTS_FACTORY: Final = "IVF16,PQ8x8"  # for the 512 features of parts of photographs
REFERENCES_FACTORY: Final = "IVF512,PQ8x8"
EDITED_SIDE: Final = 512  # copies are made of the published image at this size: edits of twelve megapixels take minutes

Pixels = np.ndarray


@dataclass(frozen=True)
class Row:
    """One line of the table; `ratio` is plain over engine, and `core_ratio` the same of the time of all cores, which
    depends less on what else the machine does."""

    extractor: str
    size: str
    steps: int
    device: str
    images: int
    batch: int
    plain_ms_per_image: float
    engine_ms_per_image: float
    ratio: float
    core_ratio: float
    engine_images_per_s: float
    device_ms_per_image: float
    peak_memory_mb: float
    psnr_db_plain: float
    psnr_db_engine: float
    recall_passive: float | None
    recall_plain: float | None
    recall_engine: float | None


@dataclass(frozen=True)
class Subject:
    """An extractor with what belongs to it: the plain network, a codec, and an index's codes to search among."""

    name: str
    extractor: Extractor
    loop: PlainLoop
    codec: Codec
    references: np.ndarray | None


@click.command(help=__doc__)
@click.option("--images", type=click.Path(exists=True, path_type=Path), help="Photographs; default: scikit-image's.")
@click.option(
    "--extractor",
    "names",
    multiple=True,
    default=("compact", RESNET),
    show_default=True,
    help="A name, or a file of weights; resnet50: random weights.",
)
@click.option(
    "--features",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A .npy of the extractor's features of references, to train a codec on and to search among. Default: those of "
    "the starter collection; for another extractor, parts of photographs, without R@1.",
)
@click.option(
    "--factory", help=f"Of that index; default: {REFERENCES_FACTORY}, for parts of photographs {PARTS_FACTORY}."
)
@click.option(
    "--size", "sizes", multiple=True, default=tuple(SIZES), type=click.Choice(tuple(SIZES)), show_default=True
)
@click.option("--steps", "steps", multiple=True, default=(10, 1), show_default=True)
@click.option("--count", type=int, help="Images of each size; default: 16, 8 and 2.")
@click.option("--batch", type=int, help="Images in a batch of the engine; default: as in a worker.")
@click.option("--no-recall", is_flag=True, help="Leave R@1 out: its edited copies take longer than the rest.")
@click.option(
    "--robust", is_flag=True, help="Measure only the engine: the device's time in robust mode over the default's."
)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the rows to this file.")
def main(  # one parameter an option
    images: Path | None,
    names: tuple[str, ...],
    features: Path | None,
    factory: str | None,
    sizes: tuple[str, ...],
    steps: tuple[int, ...],
    count: int | None,
    batch: int | None,
    no_recall: bool,
    robust: bool,
    json_path: Path | None,
) -> None:
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    rows: list[Row] = []
    for name in names:
        for device in devices:
            subject = make_subject(name, torch.device(device), images, features, factory)
            for size in sizes:
                photos = photographs_of(images, SIZES[size], count or COUNTS[size])
                if robust:
                    show_robust(subject, size, photos, batch or BATCH_IMAGES[device])
                    continue
                for number in steps:
                    recall = subject.references is not None and not no_recall
                    rows.append(measure(subject, size, photos, number, batch or BATCH_IMAGES[device], recall))
                    show(rows[-1], first=len(rows) == 1)
    if json_path:
        json_path.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


def make_subject(
    name: str, device: torch.device, images: Path | None, features: Path | None = None, factory: str | None = None
) -> Subject:
    """An extractor with a codec and an index.

    Those of the starter collection, for its extractor. For another one the index holds the `features` (N, D) of a
    file, and the codec is trained on them. Without such a file it is trained on parts of photographs, which is right
    for timing, and no R@1 is measured. `resnet50` is SSCD's network with random weights.

    Raises:
        click.UsageError: the features are of another extractor.
    """
    if name == RESNET:
        return make_resnet(device, images)
    extractor = load_extractor(name, device)
    codec, references = _index(extractor, images, features, factory)
    loop = PlainLoop(load_network(name), extractor.input_size, codec, device)
    return Subject(name, extractor, loop, codec, references)


def _index(
    extractor: Extractor, images: Path | None, features: Path | None, factory: str | None
) -> tuple[Codec, Codes | None]:
    """A codec, and the codes (N, code_size) to search among."""
    if features:
        known = _known(features, extractor.dimension)
        codec = Codec.train(factory or REFERENCES_FACTORY, known)
        return codec, codec.encode(known)
    card = starter.read_card()
    if card.extractor.sha256 == extractor.sha256:
        return Codec.read(starter.FOLDER / "codec.faiss", card.factory), starter.read_codes()
    return _codec_of(extractor, _inputs(images, extractor.input_size), factory or PARTS_FACTORY), None


def _known(path: Path, dimension: int) -> Features:
    features: Features = np.load(path)
    if features.ndim != 2 or features.shape[1] != dimension:
        raise click.UsageError(f"{path} holds no features of {dimension} dimensions: it was made by another extractor.")
    return features


def make_resnet(device: torch.device, images: Path | None) -> Subject:
    """Random weights, but with statistics of photographs: batch norms are calibrated on them, and features centred and
    scaled, so that they spread over the sphere as a trained network's do. The codec is trained on such features."""
    inputs = _inputs(images, 288)
    torch.manual_seed(0)
    net = torchvision.models.resnet50(weights=None, num_classes=512)
    _calibrate(net, inputs)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "random.torchvision.pt")
        torch.save(net.state_dict(), path)
        extractor, loaded = load_extractor(str(path), device), load_network(str(path))
    codec = _codec_of(extractor, inputs)
    return Subject("resnet50 (random weights)", extractor, PlainLoop(loaded, 288, codec, device), codec, None)


def _inputs(images: Path | None, side: int) -> torch.Tensor:
    """Photographs (B, 3, S, S), at most 64."""
    return torch.stack([to_input(photo, side) for photo in photographs_of(images, SIZES["512"], 64)])


def _codec_of(extractor: Extractor, inputs: torch.Tensor, factory: str = PARTS_FACTORY) -> Codec:
    """Trained on eight parts of each of the images (B, 3, S, S)."""
    random, features = torch.Generator().manual_seed(0), Engine(extractor).features
    views = [_crop(inputs, random) for _ in range(8)]
    return Codec.train(factory, np.concatenate([features(part) for view in views for part in view.split(16)]))


def _calibrate(net: torchvision.models.ResNet, inputs: torch.Tensor) -> None:
    """Set the statistics of the batch norms, and the last layer's scale and offset, by images (B, 3, S, S)."""
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the average of all batches
    with torch.no_grad():
        net.train()
        for part in inputs.split(16):
            net(part)
        net.eval()
        outputs = torch.cat([net(part) for part in inputs.split(16)])
        scale = outputs.std(dim=0)
        net.fc.bias.copy_((net.fc.bias - outputs.mean(dim=0)) / scale)
        net.fc.weight.div_(scale[:, None])


def _crop(images: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """A part of each image (B, 3, S, S), scaled to its size."""
    side = images.shape[-1]
    shown = int(torch.randint(side // 2, side + 1, (), generator=random))
    top, left = (int(torch.randint(0, side - shown + 1, (), generator=random)) for _ in range(2))
    part = images[..., top : top + shown, left : left + shown]
    return torch.nn.functional.interpolate(part, (side, side), mode="bilinear", antialias=True)


def photographs_of(folder: Path | None, size: tuple[int, int], count: int) -> list[Pixels]:
    """Photographs cut to the aspect of `size` (height, width) and scaled to it."""
    if folder:
        found = [Image.fromarray(decode(data, LIMITS).pixels) for _, data in image_files(folder)]
    else:
        found = [Image.open(io.BytesIO(data)).convert("RGB") for data in photographs().values()]
    height, width = size
    return [_fitted(found[i % len(found)], width, height) for i in range(min(count, len(found)) if folder else count)]


def _fitted(picture: Image.Image, width: int, height: int) -> Pixels:
    scale = min(picture.width / width, picture.height / height)
    # Rounding may make the product a trace larger than the picture, and Pillow refuses a box that leaves it.
    wide, high = min(scale * width, picture.width), min(scale * height, picture.height)
    left, top = (picture.width - wide) / 2, (picture.height - high) / 2
    area = left, top, min(left + wide, picture.width), min(top + high, picture.height)
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC, box=area))


def measure(subject: Subject, size: str, photos: Sequence[Pixels], steps: int, batch: int, recall: bool) -> Row:
    device = subject.extractor.device
    run_engine(subject, photos[:batch], steps, batch)  # warm: kernels are made for each size of a batch
    _synchronise(device)
    (made, codes, device_ms), engine_ms, engine_core_ms = _timed(
        lambda: run_engine(subject, photos, steps, batch), device
    )
    subject.loop.activate(photos[0], 1)
    plain, plain_ms, plain_core_ms = _timed(lambda: [subject.loop.activate(photo, steps) for photo in photos], device)
    recalls: tuple[float | None, ...] = (None, None, None)
    if recall:
        passive_codes = [code for _, code in plain]
        recalls = (
            recall_at_1(subject, photos, passive_codes),
            recall_at_1(subject, [pixels for pixels, _ in plain], passive_codes),
            recall_at_1(subject, made, codes),
        )
    count = len(photos)
    return Row(
        subject.name, size, steps, _name(device), count, batch,
        plain_ms / count, engine_ms / count, plain_ms / engine_ms, plain_core_ms / engine_core_ms,
        1000 * count / engine_ms, device_ms, _peak_memory_mb(device),
        float(np.mean([psnr_db(a, b) for a, (b, _) in zip(photos, plain, strict=True)])),
        float(np.mean([psnr_db(a, b) for a, b in zip(photos, made, strict=True)])),
        *recalls,
    )  # fmt: skip


def show_robust(subject: Subject, size: str, photos: Sequence[Pixels], batch: int) -> None:
    """Milliseconds of the device and in all for an image, by the default (ten steps at most) and in robust mode."""
    figures = []
    for robust in (False, True):
        run_engine(subject, photos[:batch], 10, batch, robust=robust)
        (_, _, device_ms), total_ms, _ = _timed(
            partial(run_engine, subject, photos, 10, batch, robust=robust), subject.extractor.device
        )
        figures.append((device_ms, total_ms / len(photos)))
    (plain_device, plain_total), (robust_device, robust_total) = figures
    times = robust_device / plain_device, robust_total / plain_total
    click.echo(
        f"{subject.name}, {size}, {len(photos)} images: device {plain_device:.1f} ms by default, "
        f"{robust_device:.1f} ms robust, {times[0]:.1f} times; "
        f"in all {plain_total:.1f} and {robust_total:.1f} ms, {times[1]:.1f} times"
    )


def run_engine(
    subject: Subject, photos: Sequence[Pixels], steps: int, batch: int, *, robust: bool = False
) -> tuple[list[Pixels], list[np.ndarray], float]:
    """Changed images, codes, and the milliseconds that the device took for an image. Pixels are worked on by threads of
    their own, as by a worker's handlers."""
    engine, options = Engine(subject.extractor), ActivationOptions(steps=steps, robust=robust)
    shrink = partial(prepare, input_size=subject.extractor.input_size, alpha=options.alpha)
    made, codes, device_ms = [], [], []
    with ThreadPoolExecutor(torch.get_num_threads(), initializer=torch.set_num_threads, initargs=(1,)) as handlers:
        for start in range(0, len(photos), batch):
            part = photos[start : start + batch]
            prepared = list(handlers.map(shrink, part))
            found = drain(engine.activate([Work(p, subject.codec, options, steps) for p in prepared]))
            made += handlers.map(compose, part, prepared, [f.change for f in found])
            codes += [f.code for f in found]
            device_ms += [f.device_ms for f in found]
    return made, codes, float(np.mean(device_ms))


def drain(steps: Any) -> Any:
    """What a generator returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def recall_at_1(subject: Subject, published: Sequence[Pixels], codes: Sequence[np.ndarray]) -> float:
    """Share of the fourteen edits of each image that find it first, at nprobe 1, among the references."""
    assert subject.references is not None
    index = subject.codec.filled(np.concatenate([subject.references, np.stack(codes)]))
    engine, right = Engine(subject.extractor), 0
    small = [_shrunk(pixels) for pixels in published]
    for edit in EDITS.values():
        inputs = [to_input(np.asarray(edit(image, 0)), subject.extractor.input_size) for image in small]
        _, first = index.search(engine.features(torch.stack(inputs)), 1)
        right += int(np.sum(first[:, 0] == len(subject.references) + np.arange(len(published))))
    return right / (len(EDITS) * len(published))


def _shrunk(pixels: Pixels) -> Image.Image:
    image = Image.fromarray(pixels)
    image.thumbnail((EDITED_SIDE, EDITED_SIDE), Image.Resampling.BICUBIC)
    return image


def _timed(run: Callable[[], Any], device: torch.device) -> tuple[Any, float, float]:
    """The result, and milliseconds by the clock and of all cores."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    began, core_began = time.perf_counter(), time.process_time()
    result = run()
    _synchronise(device)
    return result, 1000 * (time.perf_counter() - began), 1000 * (time.process_time() - core_began)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"


def _peak_memory_mb(device: torch.device) -> float:
    """Of the device; on a CPU, of the process so far, both directions included."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**10 if sys.platform == "linux" else 2**20)


def show(row: Row, first: bool) -> None:
    if first:
        click.echo(
            "extractor                   size  steps  plain ms  engine ms  ratio  of core time  (device ms)    MB  "
            "PSNR plain  engine  R@1 passive  plain  engine"
        )
    recalls = (row.recall_passive, row.recall_plain, row.recall_engine)
    passive, plain, engine = ("    –" if value is None else f"{value:.3f}" for value in recalls)
    click.echo(
        f"{row.extractor:<26} {row.size:>5} {row.steps:>6} {row.plain_ms_per_image:>9.1f} "
        f"{row.engine_ms_per_image:>10.1f} {row.ratio:>6.1f} {row.core_ratio:>13.1f} {row.device_ms_per_image:>12.2f} "
        f"{row.peak_memory_mb:>5.0f}  {row.psnr_db_plain:>10.2f} {row.psnr_db_engine:>7.2f} "
        f"{passive:>12} {plain:>6} {engine:>7}   {row.device}"
    )


if __name__ == "__main__":
    main()
