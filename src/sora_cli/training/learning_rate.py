"""The learning rate: constant after a linear warm-up."""

from __future__ import annotations


def learning_rate(base: float, update: int, warmup_steps: int | None) -> float:
    """The rate of update number `update`, counted from 0: base (k + 1) / (W + 1) in the first W updates, then base."""
    if not warmup_steps or update >= warmup_steps:
        return base
    return base * (update + 1) / (warmup_steps + 1)
