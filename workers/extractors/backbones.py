"""Existing networks: SSCD, torchvision's backbones with one pooling layer, TorchScript files."""

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
import torchvision.models
from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet

from tasks.errors import CorruptExtractor, ExtractorMissing
from workers.extractors.network import GeM

__all__ = ["POOLINGS", "SSCD", "backbone", "sscd", "torchscript"]

POOLINGS: Final = ("gem", "avg")

# Architecture: blocks a stage, groups, width a group, dimension of the feature (Pizzi et al., CVPR 2022, and the
# published weights' names: every `sscd_*` but `sscd_disc_large` is the first).
SSCD: Final[Mapping[str, tuple[list[int], int, int, int]]] = {
    "sscd": ([3, 4, 6, 3], 1, 64, 512),
    "sscd-large": ([3, 4, 23, 3], 32, 4, 1024),
}
_SSCD_PREFIX: Final = "backbone."


def sscd(architecture: str, path: Path) -> nn.Module:
    """SSCD from a published ``*.torchvision.pt`` state dict, filled strictly: no key may be missing or left over.

    Raises:
        CorruptExtractor: the file is not a state dict, or not this architecture's.
    """
    blocks, groups, width, dimension = SSCD[architecture]
    net = ResNet(Bottleneck, blocks, num_classes=dimension, groups=groups, width_per_group=width)
    net.avgpool = GeM(p=3.0)
    return _filled(net, {k.removeprefix(_SSCD_PREFIX): v for k, v in _state(path).items()}, path)


def backbone(name: str, pooling: str, path: Path) -> nn.Module:
    """A torchvision classifier without its head: the pooled feature map is the embedding.

    Raises:
        ExtractorMissing: torchvision has no such network, or it does not end in a pooled feature map.
        CorruptExtractor: the file is not that network's state dict.
    """
    if name not in torchvision.models.list_models(module=torchvision.models):
        raise ExtractorMissing(f"torchvision has no network {name!r}: `torchvision.models.list_models()` shows them.")
    net = _filled(torchvision.models.get_model(name, weights=None, **_quiet(name)), _state(path), path)
    pool = GeM() if pooling == "gem" else nn.AdaptiveAvgPool2d(1)
    if isinstance(getattr(net, "fc", None), nn.Linear) and hasattr(net, "avgpool"):
        net.avgpool, net.fc = pool, nn.Identity()
        return net
    features = getattr(net, "features", None)
    if isinstance(features, nn.Sequential) and not name.startswith("swin"):  # whose maps have their channels last
        return nn.Sequential(features, nn.ReLU(), pool, nn.Flatten())
    raise ExtractorMissing(f"{name} does not end in a pooled feature map: use a ResNet, RegNet, EfficientNet …")


def torchscript(path: Path) -> nn.Module:
    """A TorchScript file, such as SSCD's ``*.torchscript.pt``. It may run code: load only what you trust."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch will drop the format; such files are still published
            net: nn.Module = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, OSError) as error:
        raise CorruptExtractor(f"{path.name} is not a TorchScript file: {_first_line(error)}") from error
    return net


def _quiet(name: str) -> dict[str, Any]:
    """Without the costly initialisation of weights that are overwritten at once, and without auxiliary heads."""
    return {"init_weights": False} if name in ("googlenet", "inception_v3") else {}


def _state(path: Path) -> dict[str, torch.Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, EOFError, KeyError, OSError, pickle.UnpicklingError) as error:
        raise CorruptExtractor(
            f"{path.name} is not a state dict that can be read safely ({_first_line(error)}): fetch it again, or save "
            "it with torch.save(net.state_dict(), …)."
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise CorruptExtractor(f"{path.name} holds something else than a state dict: save net.state_dict() alone.")
    return state


def _filled(net: nn.Module, state: Mapping[str, torch.Tensor], path: Path) -> nn.Module:
    try:
        net.load_state_dict(state, strict=True)
    except RuntimeError as error:
        wanted = set(net.state_dict())
        missing, unexpected = sorted(wanted - state.keys()), sorted(state.keys() - wanted)
        keys = f"missing {_some(missing)}, unexpected {_some(unexpected)}"
        what = keys if missing or unexpected else _shapes(net, state)
        raise CorruptExtractor(
            f"{path.name} is of another network than it is loaded as: {what}. Name the right one before an @."
        ) from error
    return net


def _some(names: list[str]) -> str:
    return f"{len(names)} keys ({', '.join(names[:3])}…)" if names else "none"


def _shapes(net: nn.Module, state: Mapping[str, torch.Tensor]) -> str:
    wrong = ((k, state[k].shape, v.shape) for k, v in net.state_dict().items() if state[k].shape != v.shape)
    name, given, wanted = next(wrong)
    return f"{name} is {tuple(given)}, not {tuple(wanted)}"


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]
