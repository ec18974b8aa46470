"""The compact extractor's weights on disk: one safetensors file and one JSON file that names its digest."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from tasks.errors import CorruptExtractor, ExtractorMismatch, ExtractorMissing
from tasks.files import write_atomically
from workers.extractors.compact import DIMENSION, INPUT_SIZE, CompactNet

__all__ = ["read_weights", "write_weights"]


def write_weights(net: CompactNet, path: Path, facts: Mapping[str, Any]) -> None:
    """Write ``net`` to ``path`` and its sidecar, each whole or not at all."""
    # num_batches_tracked counts training steps: nothing that a feature depends on.
    tensors = {k: v.detach().contiguous().cpu() for k, v in net.state_dict().items() if v.is_floating_point()}
    data = save(tensors)
    sidecar = {
        "name": "compact",
        "sha256": hashlib.sha256(data).hexdigest(),
        "input_size": INPUT_SIZE,
        "dimension": DIMENSION,
        "parameters": sum(p.numel() for p in net.parameters()),
        **facts,
    }
    write_atomically(path, data)
    write_atomically(path.with_suffix(".json"), json.dumps(sidecar, indent=2) + "\n")


def read_weights(path: Path) -> tuple[CompactNet, str]:
    """The network in evaluation mode, and the digest of its file.

    Raises:
        ExtractorMissing: the file is not there.
        ExtractorMismatch: the file is not the one that the JSON file beside it names.
        CorruptExtractor: it is damaged, or holds other tensors than the network's.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ExtractorMissing(f"There are no extractor weights at {path}: check the path.") from error
    digest = hashlib.sha256(data).hexdigest()
    _check_sidecar(path, digest)
    net = CompactNet()
    try:
        _fill(net, load(data))
    except (SafetensorError, ValueError) as error:
        raise CorruptExtractor(f"{path.name} is damaged, or not the compact network's: {error}") from error
    return net.eval(), digest


def _check_sidecar(path: Path, digest: str) -> None:
    """A file that was downloaded comes without one, and is pinned by its digest instead."""
    sidecar = path.with_suffix(".json")
    if not sidecar.exists():
        return
    described = json.loads(sidecar.read_text())
    if [described.get(key) for key in ("sha256", "input_size", "dimension")] != [digest, INPUT_SIZE, DIMENSION]:
        raise ExtractorMismatch(
            f"{path.name} (sha256 {digest[:12]}…) is not what {sidecar.name} describes: copy both files again."
        )


def _fill(net: CompactNet, tensors: Mapping[str, torch.Tensor]) -> None:
    wanted = {name: value for name, value in net.state_dict().items() if value.is_floating_point()}
    if wanted.keys() != tensors.keys():
        raise ValueError(f"unexpected or missing tensors: {sorted(wanted.keys() ^ tensors.keys())}")
    for name, value in wanted.items():
        given = tensors[name]
        if given.shape != value.shape or given.dtype != value.dtype:
            raise ValueError(f"{name} is {tuple(given.shape)} {given.dtype}, not {tuple(value.shape)} {value.dtype}")
        value.copy_(given)
