"""What changes while the training goes on, as functions of its progress in [0, 1].

Progress is measured in time, not in steps: a run of 75 minutes uses 75 minutes on any machine.
"""

import math

__all__ = ["FINE_TUNE_FROM", "MEMORY_FROM", "learning_rate", "side_at", "strength_at"]

WARM_UP = 0.04
FINE_TUNE_FROM = 0.6  # where in the schedule a network starts that was trained before
MEMORY_FROM = 0.4  # features of the first part change too fast to be compared with later ones


def learning_rate(progress: float, peak: float) -> float:
    """A short linear rise, then a cosine down to a hundredth of the peak."""
    if progress < WARM_UP:
        return peak * max(0.02, progress / WARM_UP)
    fall = (progress - WARM_UP) / (1.0 - WARM_UP)
    return peak * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * min(fall, 1.0))))


def side_at(progress: float, final_side: int) -> int:
    """Small inputs first, since they cost a third; the last fifth sees the size that is served."""
    for until, side in ((0.6, 64), (0.8, 80)):
        if progress < until:
            return min(side, final_side)
    return final_side


def strength_at(progress: float) -> float:
    """Factor on the probabilities of strong edits: gentle for the first third."""
    return min(1.0, 0.35 + 1.5 * progress)
