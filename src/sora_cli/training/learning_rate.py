"""The learning rate: constant after a linear warm-up, and falling towards the end where that is asked for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from sora_cli.config.train_schema import TrainConfig
    from sora_cli.config.vae_schema import VaeTrainConfig


class Decay(NamedTuple):
    """How the rate falls. kind: "linear" or "cosine"; steps: updates of the run; start: share of them before it falls.

    final: share of the rate that is left at the end.
    """

    kind: str
    steps: int
    start: float
    final: float

    def factor(self, update: int) -> float:
        """What the rate is multiplied with in update number `update`, counted from 0."""
        first = self.start * self.steps
        if update <= first:
            return 1.0
        way = min(1.0, (update - first) / (self.steps - first))
        if self.kind == "cosine":
            way = (1 - math.cos(math.pi * way)) / 2
        return 1 - (1 - self.final) * way


def decay_of(config: TrainConfig | VaeTrainConfig) -> Decay | None:
    """How the learning rate of a run falls; None where it is constant or, in a search of batch sizes, has no end."""
    settings, steps = config.optimizer, config.run.steps
    if settings.schedule == "constant" or steps is None:
        return None
    return Decay(settings.schedule, steps, settings.decay_start, settings.decay_final)


def learning_rate(base: float, update: int, warmup_steps: int | None, decay: Decay | None = None) -> float:
    """The rate of update number `update`, counted from 0: base (k + 1) / (W + 1) in the first W updates, then base.

    decay: multiplies it; None for a constant rate.
    """
    rate = base if decay is None else base * decay.factor(update)
    if not warmup_steps or update >= warmup_steps:
        return rate
    return rate * (update + 1) / (warmup_steps + 1)
