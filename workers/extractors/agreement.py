"""How far a form of a network agrees with its float32 form: in features, in gradients, and in codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
import torch.nn.functional as F
from torch import nn

from workers.extractors.network import embed

__all__ = ["Agreement", "Form", "compare"]

LEAST_COSINE: Final = 0.999
LEAST_GRADIENT_COSINE: Final = 0.95
LEAST_EQUAL_CODES: Final = 0.99
_GRADIENT_PROBES: Final = 4
# Codes of PQ8x8, by codebooks drawn like the features: the extractor serves indexes that are not known at load.
_SUBSPACES, _CENTROIDS, _CODEBOOKS = 8, 256, 64


@dataclass(frozen=True)
class Form:
    """A network, for :func:`workers.extractors.network.embed` with ``dtype`` and ``layout``."""

    net: nn.Module
    dtype: torch.dtype = torch.float32
    layout: torch.memory_format = torch.channels_last

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """(B, D) float32 of norm 1, of images (B, 3, S, S) in [0, 1]."""
        return embed(self.net, images, self.dtype, self.layout)


@dataclass(frozen=True)
class Agreement:
    """Of one form with another.

    Attributes:
        cosine: of the features, the least over all probes.
        gradient_cosine: of gradients with respect to an image, the least likewise.
        equal_codes: share of images that get the very same code.
    """

    cosine: float = 1.0
    gradient_cosine: float = 1.0
    equal_codes: float = 1.0

    @property
    def may_guide(self) -> bool:
        """Whether an optimiser gets to the same place with it."""
        return self.cosine >= LEAST_COSINE and self.gradient_cosine >= LEAST_GRADIENT_COSINE

    @property
    def may_register(self) -> bool:
        """Whether other workers, in float32, would register the same codes and verify the same images."""
        return self.may_guide and self.equal_codes >= LEAST_EQUAL_CODES

    def __str__(self) -> str:
        return f"feature {self.cosine:.5f}, gradient {self.gradient_cosine:.3f}, equal codes {self.equal_codes:.3f}"


def compare(form: Form, reference: Form, images: torch.Tensor) -> Agreement:
    """The agreement of two forms on images (B, 3, S, S)."""
    with torch.no_grad():
        expected, found = reference.features(images), form.features(images)
    if not torch.isfinite(found).all():
        return Agreement(-1.0, -1.0, 0.0)
    few, targets = images[:_GRADIENT_PROBES], expected.roll(1, dims=0)[:_GRADIENT_PROBES]
    gradients = F.cosine_similarity(_gradients(form, few, targets), _gradients(reference, few, targets))
    return Agreement(
        float(F.cosine_similarity(expected, found).min()),
        float(gradients.nan_to_num(-1.0).min()),
        _equal_codes(expected.cpu(), found.cpu()),
    )


def _gradients(form: Form, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """(B, 3·S·S): towards other images' features (B, D), as an optimiser would ask."""
    images = images.detach().clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(-(form.features(images) * targets).sum(), images)
    return gradient.flatten(1).float()


def _equal_codes(expected: torch.Tensor, found: torch.Tensor) -> float:
    """Estimated share of equal codes, from features (B, D) in two forms: the mean over random codebooks."""
    random = torch.Generator().manual_seed(0)
    equal = torch.ones(_CODEBOOKS, len(expected), dtype=torch.bool)
    parts = zip(*(f.double().tensor_split(_SUBSPACES, dim=1) for f in (expected, found)), strict=True)
    for own, other in parts:
        if own.shape[1]:
            centroids = _centroids(own, random)
            equal &= torch.cdist(own, centroids).argmin(2) == torch.cdist(other, centroids).argmin(2)
    return float(equal.double().mean())


def _centroids(points: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """(codebooks, centroids, d) with the mean and the covariance of points (B, d)."""
    centred = points - points.mean(dim=0)
    covariance = centred.T @ centred / len(points)
    d = len(covariance)
    spread = covariance.diagonal().mean().clamp(min=1e-12)  # some in every direction: B points span fewer than d
    root = torch.linalg.cholesky(0.9 * covariance + 0.1 * spread * torch.eye(d, dtype=torch.double))
    noise = torch.randn(_CODEBOOKS, _CENTROIDS, d, generator=random, dtype=torch.double)
    centroids: torch.Tensor = noise @ root.T + points.mean(dim=0)
    return centroids
