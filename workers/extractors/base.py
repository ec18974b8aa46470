"""The protocols of all extractors, whatever their network."""

from typing import Protocol

import torch

from tasks.results import ExtractorIdentity

__all__ = ["Extractor", "FeatureSource"]


class FeatureSource(Protocol):
    """What gives features of images; gradients are :class:`Extractor`'s.

    Attributes:
        sha256: names what gives the same features: two are the same exactly when these agree.
        input_size: side S of the square input, in pixels.
        dimension: length D of a feature.
        device: where ``images`` are expected.
    """

    sha256: str
    input_size: int
    dimension: int
    device: torch.device

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Features (B, D), float32, of L2 norm 1, of images (B, 3, S, S), float32, RGB in [0, 1]."""
        ...


class Extractor(FeatureSource, Protocol):
    """A frozen network from square images to features, named by its weights.

    Attributes:
        name: the name under which the registry loads it.
        sha256: hex digest of the weights file.
        device: where the weights live, too.
        half_guides: whether :meth:`guide` is another form of the network than calling it.
    """

    name: str
    half_guides: bool

    @property
    def identity(self) -> ExtractorIdentity:
        """What collections are pinned to."""
        ...

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """As :class:`FeatureSource` says; differentiable with respect to ``images``."""
        ...

    def guide(self, images: torch.Tensor) -> torch.Tensor:
        """Features to optimise by, as calling it gives them, in the form whose gradient costs least."""
        ...
