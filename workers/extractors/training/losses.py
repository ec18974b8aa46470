"""The training's objective: tell one image from all others, and spread features over the sphere.

Sources: InfoNCE (van den Oord et al., 2018); the entropy term of SSCD (Pizzi et al., CVPR 2022), after KoLeo
(Sablayrolles et al., 2019); the memory of past features (Wang et al., "Cross-Batch Memory", CVPR 2020).
"""

import torch
import torch.nn.functional as F

__all__ = ["Memory", "entropy_loss", "info_nce"]


class Memory:
    """The last ``size`` features (N, D) and the identities (N,) they belong to, as extra negatives."""

    def __init__(self, size: int, dimension: int, device: torch.device) -> None:
        self.features = torch.zeros(size, dimension, device=device)
        self.ids = torch.full((size,), -1, device=device)
        self.written = 0

    def push(self, features: torch.Tensor, ids: torch.Tensor) -> None:
        """Overwrite the oldest entries with detached ``features`` (B, D)."""
        at = torch.arange(self.written, self.written + len(ids), device=ids.device) % len(self.ids)
        self.features[at], self.ids[at] = features.detach(), ids
        self.written += len(ids)

    def held(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (M, D) and identities (M,) written so far."""
        count = min(self.written, len(self.ids))
        return self.features[:count], self.ids[:count]


def info_nce(
    queries: torch.Tensor, targets: torch.Tensor, ids: torch.Tensor, memory: Memory | None, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and hit rate of finding each target (B, D) by its query (B, D) among batch and memory; unit norms.

    Negatives are the other targets, the other queries and the memory, without entries of the same identity.
    """
    past, past_ids = memory.held() if memory else (queries[:0], ids[:0])
    others = torch.cat([queries, past])
    same = torch.cat([ids, past_ids])[None] == ids[:, None]
    negatives = (queries @ others.T).masked_fill(same, float("-inf"))
    logits = torch.cat([queries @ targets.T, negatives], dim=1)
    truth = torch.arange(len(queries), device=queries.device)
    hit_rate = (logits.argmax(1) == truth).float().mean()
    return F.cross_entropy(logits / temperature, truth), hit_rate


def entropy_loss(features: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Mean -log distance of ``features`` (B, D) to their nearest neighbour of another identity."""
    same = ids[None] == ids[:, None]
    with torch.no_grad():
        nearest = (features @ features.T).masked_fill(same, -2.0).argmax(1)
    distances: torch.Tensor = torch.linalg.vector_norm(features - features[nearest], dim=1)
    return -distances.clamp(min=1e-4).log().mean()
