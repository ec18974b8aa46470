"""How well and how fast an extractor finds edited images, behind ``aii extractor measure``.

The index is exact (Flat) and holds the references and the photographs' originals; each query is an edited photograph.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from PIL import Image

from tasks.errors import InvalidRequest
from workers.extractors.base import Extractor
from workers.extractors.training.data import held_out, readable
from workers.images import Limits
from workers.images.edits import EDITS, Edit, edit_seed
from workers.images.folders import listed_images
from workers.images.model import Pixels
from workers.images.tensors import to_input

__all__ = ["ExtractorFigures", "measure_extractor", "recall_at_1"]

BATCH = 64
TIMED_RUNS = 40
FALSE_POSITIVE_RATE = 1e-4

# The keys are those of the JSON file that users keep, and one of them is no identifier.
ExtractorFigures = TypedDict(
    "ExtractorFigures",
    {
        "photographs": int,
        "references": int,
        "recall_at_1": dict[str, float],
        "average_of_13": float,
        "true_positive_rate_at_fpr_1e-4": float,
        "speed_one_core": dict[str, float],
    },
)
"""What was measured: counts of images, R@1 by edit, its mean over the thirteen edits without `random`, the share of
copies that pass the cosine which 1e-4 of unrelated pairs pass, and milliseconds for one image on one core."""


@torch.no_grad()
def features_of(extractor: Extractor, images: Iterable[Pixels]) -> torch.Tensor:
    """Features (N, D) of N images (H, W, 3) uint8."""
    features = [torch.empty(0, extractor.dimension)]
    stream = iter(images)
    while batch := list(islice(stream, BATCH)):
        inputs = torch.stack([to_input(image, extractor.input_size) for image in batch])
        features.append(extractor(inputs.to(extractor.device)).cpu())
    return torch.cat(features)


def recall_at_1(queries: torch.Tensor, originals: torch.Tensor, references: torch.Tensor) -> float:
    """Share of queries (N, D) whose nearest among originals (N, D) and references (M, D) is their own original."""
    own = (queries * originals).sum(1)
    rivals = queries @ originals.T
    rivals.fill_diagonal_(-2.0)
    best = torch.maximum(rivals.amax(1), (queries @ references.T).amax(1))
    return float((own > best).float().mean())


def true_positive_rate(queries: torch.Tensor, originals: torch.Tensor, fpr: float) -> float:
    """Share of queries (E·N, D), edits of originals (N, D) in order, that pass the cosine which a share ``fpr`` of the
    pairs of a query and another photograph's original passes."""
    cosines = queries @ originals.T
    own = torch.arange(len(queries)) % len(originals)
    same = torch.zeros_like(cosines, dtype=torch.bool)
    same[torch.arange(len(queries)), own] = True
    unrelated = cosines[~same]
    threshold = unrelated.sort(descending=True).values[int(fpr * len(unrelated))]
    return float((cosines[same] > threshold).float().mean())


def speed_ms(extractor: Extractor) -> dict[str, float]:
    """Median milliseconds for one image on one core: forward, and forward and backward to the image."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    image = torch.rand(1, 3, extractor.input_size, extractor.input_size, device=extractor.device)

    def forward() -> None:
        with torch.no_grad():
            extractor(image)

    def forward_backward() -> None:
        changed = image.clone().requires_grad_(True)
        torch.autograd.grad(extractor(changed)[:, 0].sum(), changed)

    try:
        return {"forward_ms": _median_ms(forward), "forward_backward_ms": _median_ms(forward_backward)}
    finally:
        torch.set_num_threads(threads)


def _median_ms(run: Callable[[], None]) -> float:
    times = []
    for _ in range(TIMED_RUNS):
        began = time.perf_counter()
        run()
        times.append(1000.0 * (time.perf_counter() - began))
    return round(statistics.median(times[TIMED_RUNS // 4 :]), 2)


def measure_extractor(
    extractor: Extractor, photographs: Path, references: Sequence[Path], hold_out: int, seed: int, limits: Limits
) -> ExtractorFigures:
    """Edit photographs, and ask for them among their originals and the references.

    Args:
        hold_out: only every K-th photograph is measured, which training with the same K left out; 0 measures all.

    Raises:
        InvalidRequest: fewer than two photographs can be read, or a path is neither a folder nor a tar file.
    """
    files = [file for i, file in enumerate(listed_images(photographs)) if hold_out == 0 or held_out(i, hold_out)]
    photos = list(readable(files, limits))
    if len(photos) < 2:
        raise InvalidRequest(f"{photographs} holds fewer than two photographs that can be read: name another folder.")
    listed = (file for path in references for file in listed_images(path))
    among = features_of(extractor, readable(listed, limits))
    originals = features_of(extractor, photos)
    copies = {name: features_of(extractor, _copies(photos, edit, seed)) for name, edit in EDITS.items()}
    recalls = {name: round(recall_at_1(queries, originals, among), 4) for name, queries in copies.items()}
    deterministic = [value for name, value in recalls.items() if name != "random"]
    rate = true_positive_rate(torch.cat(list(copies.values())), originals, FALSE_POSITIVE_RATE)
    return {
        "photographs": len(photos),
        "references": len(among),
        "recall_at_1": recalls,
        "average_of_13": round(statistics.mean(deterministic), 4),
        "true_positive_rate_at_fpr_1e-4": round(rate, 4),
        "speed_one_core": speed_ms(extractor),
    }


def _copies(photos: Sequence[Pixels], edit: Edit, seed: int) -> Iterator[Pixels]:
    for i, photo in enumerate(photos):
        yield np.asarray(edit(Image.fromarray(photo), edit_seed(seed, str(i))))
