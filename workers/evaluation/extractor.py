"""How well and how fast an extractor finds edited images: ``python -m workers.evaluation.extractor --help``.

The index is exact (Flat) and holds the references and the photographs' originals; each query is an edited photograph.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from workers.evaluation.edits import EDITS, edit_seed
from workers.extractors.base import Extractor
from workers.extractors.registry import load_extractor
from workers.extractors.training.data import held_out, read_rgb
from workers.images.folders import image_files
from workers.images.tensors import to_input

__all__ = ["main", "recall_at_1", "speed_ms"]

BATCH = 64
TIMED_RUNS = 40
FALSE_POSITIVE_RATE = 1e-4


@torch.no_grad()
def features_of(extractor: Extractor, images: Iterable[Image.Image]) -> torch.Tensor:
    """Features (N, D) of PIL RGB images."""
    found = []
    stream = iter(images)
    while batch := list(islice(stream, BATCH)):
        inputs = torch.stack([to_input(np.asarray(image), extractor.input_size) for image in batch])
        found.append(extractor(inputs.to(extractor.device)).cpu())
    return torch.cat(found)


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


def _photographs(folder: Path, every: int) -> list[Image.Image]:
    """The held-out photographs, or all of them for ``every`` = 0."""
    images = [data for i, (_, data) in enumerate(image_files(folder)) if every == 0 or held_out(i, every)]
    return [read_rgb(data) for data in images]


def _references(paths: Sequence[Path]) -> Iterator[Image.Image]:
    for path in paths:
        for _, data in image_files(path):
            yield read_rgb(data)


def measure(
    extractor: Extractor, photos: Sequence[Image.Image], references: torch.Tensor, seed: int
) -> tuple[dict[str, float], float]:
    """R@1 by edit, and the share of all edits that are told from unrelated photographs at a false-positive rate of
    1e-4."""
    originals = features_of(extractor, photos)
    seeds = [edit_seed(seed, str(i)) for i in range(len(photos))]
    edited = {
        name: features_of(extractor, (edit(p, s) for p, s in zip(photos, seeds, strict=True)))
        for name, edit in EDITS.items()
    }
    recalls = {name: round(recall_at_1(queries, originals, references), 4) for name, queries in edited.items()}
    return recalls, round(true_positive_rate(torch.cat(list(edited.values())), originals, FALSE_POSITIVE_RATE), 4)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="R@1 of edited photographs in an exact index, and speed.")
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--references", type=Path, nargs="+", required=True)
    parser.add_argument("--hold-out", type=int, default=0, help="measure every K-th photograph only")
    parser.add_argument("--extractor", default="compact", help="its name, or where its weights are")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    given = parser.parse_args(arguments)
    device = torch.device("cpu")
    extractor = load_extractor(given.extractor, device)
    photos = _photographs(given.photos, given.hold_out)
    references = features_of(extractor, _references(given.references))
    recalls, found = measure(extractor, photos, references, given.seed)
    deterministic = [value for name, value in recalls.items() if name != "random"]
    figures = {
        "photographs": len(photos),
        "references": len(references),
        "recall_at_1": recalls,
        "average_of_13": round(statistics.mean(deterministic), 4),
        "true_positive_rate_at_fpr_1e-4": found,
        "speed_one_core": speed_ms(extractor),
    }
    for name, value in [*recalls.items(), ("average of the 13", figures["average_of_13"])]:
        print(f"{name:<20}{value:.3f}")
    print(f"{found:.3f} of all edits pass the threshold that 1 of 10,000 unrelated pairs of photographs passes")
    print(figures["speed_one_core"])
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
