"""Extractors by name."""

from pathlib import Path

import torch

from tasks.errors import ExtractorMissing
from workers.extractors.base import Extractor
from workers.extractors.compact import DIMENSION, INPUT_SIZE, CompactNet, folded
from workers.extractors.weights_file import read_weights

__all__ = ["CompactExtractor", "load_extractor"]

COMPACT_WEIGHTS = Path(__file__).with_name("weights") / "compact.safetensors"


class CompactExtractor:
    """The extractor we ship; see ``Extractor`` for what it promises."""

    name = "compact"
    input_size = INPUT_SIZE
    dimension = DIMENSION

    def __init__(self, net: CompactNet, sha256: str, device: torch.device) -> None:
        self._net = folded(net).to(device)
        self.sha256 = sha256
        self.device = device

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        if images.ndim != 4 or images.shape[1:] != (3, self.input_size, self.input_size):
            raise ValueError(f"expected (B, 3, {self.input_size}, {self.input_size}), got {tuple(images.shape)}")
        features: torch.Tensor = self._net(images.contiguous(memory_format=torch.channels_last))
        return features


def load_extractor(name: str, device: torch.device) -> Extractor:
    """The extractor of this name, frozen and on ``device``.

    Raises:
        ExtractorMissing: no extractor has this name, or its weights are not installed.
        ExtractorMismatch: its weights are not the ones pinned.
    """
    if name != CompactExtractor.name:
        raise ExtractorMissing(f"no extractor named {name!r}; there is {CompactExtractor.name!r}")
    net, sha256 = read_weights(COMPACT_WEIGHTS)
    return CompactExtractor(net, sha256, device)
