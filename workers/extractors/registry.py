"""Extractors by name; see :mod:`workers.extractors.spec` for the names."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

import torch
from torch import nn

from tasks.errors import DeviceFull, ExtractorMismatch, InvalidSetting
from tasks.machine import gpus
from tasks.results import ExtractorIdentity
from tasks.state_folder import state_dir
from tasks.storage import ObjectStore
from workers.extractors.backbones import SSCD, backbone, sscd, torchscript
from workers.extractors.compact import INPUT_SIZE
from workers.extractors.onnx_file import onnx_network
from workers.extractors.prepare import PreparedNetwork, prepare
from workers.extractors.sources import fetch
from workers.extractors.spec import Spec, parse_spec
from workers.extractors.weights_file import read_weights

__all__ = ["COMPACT_WEIGHTS", "load_extractor", "load_network", "located", "pick_device", "why_no_gpu"]

logger = logging.getLogger(__name__)

COMPACT_WEIGHTS: Final = Path(__file__).with_name("weights") / "compact.safetensors"


class NetworkExtractor:
    """A prepared network behind the protocol; see :class:`workers.extractors.base.Extractor` for what it promises."""

    def __init__(
        self, name: str, sha256: str, input_size: int, prepared: PreparedNetwork, device: torch.device
    ) -> None:
        self.name = name
        self.sha256 = sha256
        self.input_size = input_size
        self.dimension = prepared.dimension
        self.device = device
        self.half_guides = prepared.guides is not prepared.registers
        self._prepared = prepared

    @property
    def identity(self) -> ExtractorIdentity:
        return ExtractorIdentity(name=self.name, sha256=self.sha256, dimension=self.dimension)

    @property
    def precision(self) -> str:
        """What it computes in, for people."""
        registers, guides = (_dtype(form.dtype) for form in (self._prepared.registers, self._prepared.guides))
        return registers if registers == guides else f"{registers}; {guides} while an image is optimised"

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self._check(images)
        return self._prepared.registers.features(images)

    def guide(self, images: torch.Tensor) -> torch.Tensor:
        self._check(images)
        return self._prepared.guides.features(images)

    def _check(self, images: torch.Tensor) -> None:
        if images.ndim != 4 or images.shape[1:] != (3, self.input_size, self.input_size):
            raise ValueError(f"expected (B, 3, {self.input_size}, {self.input_size}), got {tuple(images.shape)}")


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def pick_device(name: str) -> torch.device:
    """The device of a setting: ``auto`` is CUDA where it can be used.

    Raises:
        InvalidSetting: there is no such device here.
    """
    missing = why_no_gpu()
    if name == "auto":
        if missing:
            logger.info("The extractor runs on the CPU: %s", missing)
        return torch.device("cpu" if missing else "cuda")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise InvalidSetting(f"AII_DEVICE is {name}: it takes auto, cpu, cuda or cuda:N.")
    if device.type == "cuda" and missing:
        raise InvalidSetting(f"AII_DEVICE is {name}, and it cannot be used: {missing} Or set it to auto or cpu.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InvalidSetting(f"AII_DEVICE is {name}, and there are {torch.cuda.device_count()} GPUs, counted from 0.")
    return device


def why_no_gpu() -> str | None:
    """Why CUDA cannot be used, and what to do; None where it can."""
    if torch.version.cuda is None:
        return "this torch is built without CUDA; install another build."
    if torch.cuda.is_available():
        return None
    if not gpus():
        return "there is no NVIDIA GPU, or it is hidden from this process; give the container the GPU."
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return f"{str(error).splitlines()[0].rstrip('.')}; install a driver for CUDA {torch.version.cuda}."
    return "CUDA does not start; see what nvidia-smi says."


def load_extractor(
    name: str, device: torch.device, store: ObjectStore | None = None, *, precision: str = "auto"
) -> NetworkExtractor:
    """The extractor of this name, frozen, prepared and on ``device``.

    Args:
        name: ``compact``, or where weights are; see :mod:`workers.extractors.spec`.
        store: needed for names that begin with ``s3://``.
        precision: `auto`, or what guides the optimiser; see :func:`workers.extractors.prepare.prepare`.

    Raises:
        ExtractorMissing: nothing has this name, or the weights are not where it says.
        ExtractorMismatch: the weights are not the ones pinned.
        CorruptExtractor: the weights are damaged, or another network's.
        InvalidSetting: the network does not agree with itself in this precision.
        DeviceFull: the device has no memory for it.
    """
    spec, net, digest = _found(name, store)
    side = spec.side or INPUT_SIZE
    try:
        prepared = prepare(spec.name, net, side, device, precision)
    except torch.OutOfMemoryError as error:
        raise DeviceFull(
            f"The device has no memory for the extractor {spec.name}: stop what else uses it, let fewer workers share "
            "it (`aii up --workers N`), or use another one."
        ) from error
    logger.info(
        "Extractor %s (sha256 %s…) from %s: %d-d, side %d, on %s; registers in %s, optimises in %s (%s)",
        spec.name, digest[:12], spec.address, prepared.dimension, side, device,
        prepared.registers.dtype, prepared.guides.dtype, prepared.agreement,
    )  # fmt: skip
    return NetworkExtractor(spec.name, digest, side, prepared, device)


def load_network(name: str, store: ObjectStore | None = None) -> nn.Module:
    """The bare float32 network of this name, as its weights file has it; errors as in :func:`load_extractor`."""
    return _found(name, store)[1]


def located(name: str, store: ObjectStore | None = None) -> tuple[Spec, Path, str]:
    """What the name says, a local file with the weights, and its digest; errors as in :func:`load_extractor`."""
    if name == "compact":
        spec = Spec("compact", str(COMPACT_WEIGHTS), 0, None)
    else:
        spec = parse_spec(name)
        _refuse_foreign_code(spec)
    path, digest = fetch(spec.address, spec.sha256, state_dir() / "extractors", store)
    return spec, path, digest


def _found(name: str, store: ObjectStore | None) -> tuple[Spec, nn.Module, str]:
    """What the name says, the network, and the digest of its weights."""
    spec, path, digest = located(name, store)
    return spec, _network(spec, path), digest


def _refuse_foreign_code(spec: Spec) -> None:
    """A TorchScript file may run code when it is loaded: one from a network has to be known before."""
    if spec.architecture == "torchscript" and "://" in spec.address and not spec.sha256:
        raise ExtractorMismatch(
            f"{spec.address} is TorchScript, which may run code: check where it comes from, and add #sha256=DIGEST to "
            "its address; or use the state dict (*.torchvision.pt) instead."
        )


def _network(spec: Spec, path: Path) -> nn.Module:
    if spec.architecture == "compact":
        return read_weights(path)[0]
    if spec.architecture in SSCD:
        return sscd(spec.architecture, path)
    if spec.architecture == "torchscript":
        return torchscript(path)
    if spec.architecture == "onnx":
        return onnx_network(path, spec.side, spec.normalise)
    name, _, pooling = spec.architecture.partition("+")
    return backbone(name, pooling, path)
