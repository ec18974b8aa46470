"""How sure a figure is: 95 % intervals over photographs, whose copies are found or missed together."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["RESAMPLES", "Interval", "bootstrap", "percentiles", "resampled"]

RESAMPLES: Final = 1_000
_SEED: Final = 0
_ENDS: Final = (2.5, 97.5)

Interval = tuple[float, float]


def resampled(count: int, resamples: int = RESAMPLES) -> npt.NDArray[np.int64]:
    """(R, N): how often each of N photographs is drawn in each of R samples of N; the same draws every time."""
    draw = np.random.default_rng(_SEED)
    return draw.multinomial(count, np.full(count, 1 / count), size=resamples)


def bootstrap(by_photograph: npt.NDArray[np.floating]) -> Interval:
    """The interval of the mean of figures (N,), one for each photograph (Efron's percentiles)."""
    if not len(by_photograph):
        return 0.0, 1.0
    return percentiles(resampled(len(by_photograph)) @ by_photograph / len(by_photograph))


def percentiles(figures: npt.NDArray[np.floating]) -> Interval:
    """The interval of a figure, by its values (R,) in the samples."""
    low, high = np.percentile(figures, _ENDS)
    return float(low), float(high)
