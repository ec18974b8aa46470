"""From decoded pixels to what an extractor reads."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

__all__ = ["to_input"]


def to_input(pixels: NDArray[np.uint8], size: int) -> torch.Tensor:
    """Squash (H, W, 3) uint8 RGB pixels to a (3, size, size) float32 tensor in [0, 1].

    The aspect ratio is given up, as in SSCD (Pizzi et al., 2022): nothing of the image is cut off or padded.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise ValueError(f"expected (H, W, 3) uint8 pixels, got {pixels.shape} {pixels.dtype}")
    # A copy, since pixels are often a read-only view of a decoder's buffer, which torch refuses to wrap silently.
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float().div_(255.0)
    return F.interpolate(image, (size, size), mode="bilinear", antialias=True)[0].clamp_(0.0, 1.0)
