"""The training loop of ``compact``, behind ``aii extractor train``.

Writes three files: the weights (safetensors), the same name with ``.json`` (provenance) and with ``.csv`` (the curve).
A checkpoint beside them lets a run go on after an interruption, or with more minutes than before.
"""

import copy
import csv
import logging
import platform
import random
import time
from typing import Any

import torch
import torch.nn.functional as F

from tasks.errors import InvalidRequest
from tasks.files import replacing
from workers.extractors.compact import DIMENSION, INPUT_SIZE, CompactNet
from workers.extractors.network import embed
from workers.extractors.training.augment import Strength, lightly, recut, strongly
from workers.extractors.training.data import Sampler, load_sets
from workers.extractors.training.losses import Memory, entropy_loss, info_nce
from workers.extractors.training.schedule import FINE_TUNE_FROM, MEMORY_FROM, learning_rate, side_at, strength_at
from workers.extractors.training.settings import TrainingSettings
from workers.extractors.weights_file import read_weights, write_weights

__all__ = ["Trainer", "train"]

log = logging.getLogger(__name__)

HEADROOM = 1.25  # pictures are edited at this many times the side the net sees, and drawn at as many times that
CHECKPOINT_EVERY_S = 120.0
REPORT_EVERY_STEPS = 25


class Trainer:
    """The state of a run and its steps."""

    def __init__(self, settings: TrainingSettings) -> None:
        self.settings = settings
        torch.manual_seed(settings.seed)
        random.seed(settings.seed)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        generator = torch.Generator().manual_seed(settings.seed)
        sets = load_sets(settings.images, settings.hold_out, settings.limits)
        self.sampler = Sampler(sets, settings.large_share, generator)
        self.started_from: str | None = None
        net = CompactNet()
        if settings.fine_tune:
            net, self.started_from = read_weights(settings.fine_tune)
        self.net = net.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = copy.deepcopy(self.net).eval().requires_grad_(False)
        self.optimiser = torch.optim.AdamW(_groups(self.net, settings.weight_decay), lr=settings.peak_lr)
        self.memory = Memory(settings.memory, DIMENSION, self.device)
        self.step_count = 0
        self.elapsed_s = 0.0

    @property
    def progress(self) -> float:
        return min(1.0, self.elapsed_s / (60.0 * self.settings.minutes))

    @property
    def maturity(self) -> float:
        """The progress that the schedule of sizes and edits goes by: a trained network has its first part behind it."""
        return FINE_TUNE_FROM + (1.0 - FINE_TUNE_FROM) * self.progress if self.settings.fine_tune else self.progress

    def run(self) -> None:
        """Train until the minutes are used up; leave weights, provenance and curve behind."""
        self.net.train()
        saved_at_s, sums = self.elapsed_s, dict.fromkeys(("loss", "entropy", "hit_rate"), 0.0)
        while self.progress < 1.0:
            began = time.perf_counter()
            for name, value in self.step().items():
                sums[name] += value / REPORT_EVERY_STEPS
            self.elapsed_s += time.perf_counter() - began
            if self.step_count % REPORT_EVERY_STEPS == 0:
                self._report(sums)
                sums = dict.fromkeys(sums, 0.0)
            if self.elapsed_s - saved_at_s > CHECKPOINT_EVERY_S:
                self.save()
                saved_at_s = self.elapsed_s
        self.save()

    def step(self) -> dict[str, float]:
        """One update on one batch of pairs."""
        settings, side = self.settings, side_at(self.maturity, INPUT_SIZE)
        originals, copies, ids = self._pairs(side)
        images = torch.cat([originals, copies]).contiguous(memory_format=torch.channels_last)
        features = embed(self.net, images)
        light, strong = features.chunk(2)
        keys = self._keys(images, light)
        to_light, hit_rate = info_nce(strong, keys, ids, self.memory, settings.temperature)
        to_strong, _ = info_nce(light, strong, ids, None, settings.temperature)
        entropy = entropy_loss(features, ids.repeat(2))
        loss = 0.5 * (to_light + to_strong)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.progress, settings.peak_lr)
        self.optimiser.zero_grad(set_to_none=True)
        (loss + settings.entropy_weight * entropy).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 5.0)
        self.optimiser.step()
        self.step_count += 1
        self._follow()
        if keys is not light:
            self.memory.push(keys, ids)
        return {"loss": float(loss.detach()), "entropy": float(entropy.detach()), "hit_rate": float(hit_rate)}

    @torch.no_grad()
    def _keys(self, images: torch.Tensor, light: torch.Tensor) -> torch.Tensor:
        """What the strong views have to find: the light views' features; later, by the averaged network.

        Targets and memory must come from one slow network, as in MoCo (He et al., 2020). With targets of the current
        one, moving all features away from the stale memory lowers the loss: training then diverges (measured).
        """
        if self.maturity < MEMORY_FROM:
            return light  # not detached: both views learn
        return embed(self.average, images[: len(light)])

    @torch.no_grad()
    def _pairs(self, side: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Light views and strong views (B, 3, side, side), and identities (B,)."""
        edited_side = round(HEADROOM * side)
        drawn = self.sampler.draw(self.settings.batch, round(HEADROOM * edited_side))
        images, aspects, ids = (x.to(self.device) for x in drawn)
        pictures, aspects = recut(images, aspects, edited_side)
        copies = strongly(pictures, aspects, Strength().scaled(strength_at(self.maturity)))
        light, strong = (
            F.interpolate(view, (side, side), mode="bilinear", antialias=True) for view in (lightly(pictures), copies)
        )
        return light, strong, ids

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the averaged weights, which are the ones exported, towards the current ones."""
        decay = min(self.settings.ema_decay, (1.0 + self.step_count) / (10.0 + self.step_count))
        current = self.net.state_dict()
        for name, value in self.average.state_dict().items():
            if value.is_floating_point():
                value.lerp_(current[name], 1.0 - decay)
            else:
                value.copy_(current[name])

    def save(self) -> None:
        """Write the checkpoint and the averaged weights, each whole or not at all."""
        state = {
            "net": self.net.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "memory": (self.memory.features, self.memory.ids, self.memory.written),
            "step_count": self.step_count,
            "elapsed_s": self.elapsed_s,
        }
        with replacing(self.settings.checkpoint) as part:
            torch.save(state, part)
        write_weights(self.average, self.settings.out, {"training": self._provenance()})

    def restore(self) -> None:
        """Go on from the checkpoint."""
        state = torch.load(self.settings.checkpoint, map_location=self.device, weights_only=True)
        self.net.load_state_dict(state["net"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.memory.features, self.memory.ids, self.memory.written = state["memory"]
        self.step_count, self.elapsed_s = state["step_count"], state["elapsed_s"]
        # Not the seed of the first part: its pictures would come again in the same order.
        torch.manual_seed(self.settings.seed + self.step_count)
        self.sampler.generator.manual_seed(self.settings.seed + self.step_count)

    def _provenance(self) -> dict[str, Any]:
        settings = self.settings
        kept_out = f"{settings.images[0].name} et al., every {settings.hold_out}th image of a folder held out"
        return {
            "command": settings.command,
            "data": {path.name: len(pool) for path, pool in zip(settings.images, self.sampler.sources, strict=True)},
            "held_out": kept_out if settings.hold_out else None,
            "seed": settings.seed,
            "minutes": round(self.elapsed_s / 60.0, 1),
            "steps": self.step_count,
            "batch": settings.batch,
            "peak_lr": settings.peak_lr,
            "started_from": self.started_from,
            "hardware": f"{self.device.type}, {torch.get_num_threads()} threads, {platform.machine()}",
            "torch": torch.__version__,
        }

    def _report(self, means: dict[str, float]) -> None:
        row = {
            "minutes": self.elapsed_s / 60,
            "step": self.step_count,
            "side": side_at(self.maturity, INPUT_SIZE),
            **means,
        }
        curve = self.settings.curve
        fresh = not curve.exists()
        with curve.open("a", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            if fresh:
                writer.writerow(row)
            writer.writerow(f"{value:.4g}" if isinstance(value, float) else value for value in row.values())
        log.info(" ".join(f"{name}={value:.4g}" for name, value in row.items()))


def _groups(net: CompactNet, weight_decay: float) -> list[dict[str, Any]]:
    """Decay matrices and kernels only: pulling scales, shifts and GeM's exponent to zero would harm."""
    parameters = list(net.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def train(settings: TrainingSettings, *, resume: bool) -> None:
    """Train from the beginning, or from the checkpoint of an earlier run.

    Raises:
        InvalidRequest: there are no images, or no checkpoint to resume from.
        ExtractorMissing, ExtractorMismatch, CorruptExtractor: the weights to fine-tune cannot be used.
    """
    if resume and not settings.checkpoint.exists():
        raise InvalidRequest(f"There is no checkpoint {settings.checkpoint} to resume from: leave --resume out.")
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(settings)
    if resume:
        trainer.restore()
    else:
        settings.curve.unlink(missing_ok=True)
    trainer.run()
