"""The diffusion process: which steps are kept, and the tables of coefficients (schedulers.md sections 3.1 to 3.3)."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

#: Betas of the linear schedule at 1000 steps.
FIRST_BETA, LAST_BETA = 1e-4, 2e-2
LARGEST_BETA = 0.999


def kept_steps(num_steps: int, spacing: str) -> list[int]:
    """The steps of the whole process that are kept, ascending.

    spacing: "" for all; counts for equal sections, e.g. "10,15,20"; "ddimK" for a whole stride that gives K steps.
    Raises ValueError where that is impossible.
    """
    if not spacing:
        return list(range(num_steps))
    if spacing.startswith("ddim"):
        wanted = int(spacing.removeprefix("ddim"))
        for step in range(1, num_steps):
            if len(range(0, num_steps, step)) == wanted:
                return list(range(0, num_steps, step))
        raise ValueError(f"no whole stride gives {wanted} of {num_steps} steps")
    counts = [int(count) for count in spacing.split(",")]
    size, extra = divmod(num_steps, len(counts))
    start, steps = 0, set[int]()
    for index, count in enumerate(counts):
        length = size + (index < extra)
        if count > length:
            raise ValueError(f"a section of {length} steps has no {count}")
        stride = 1.0 if count <= 1 else (length - 1) / (count - 1)
        place = 0.0
        for _ in range(count):
            steps.add(start + round(place))
            place += stride
        start += length
    return sorted(steps)


class Tables(NamedTuple):
    """Coefficients per kept step, each (K,) float32, from float32 betas as the released models were sampled.

    steps: (K,) int64, of the whole process. alphas_cumprod: share of the data's variance that is left.
    """

    steps: Tensor
    betas: Tensor
    alphas_cumprod: Tensor
    alphas_cumprod_prev: Tensor
    alphas_cumprod_next: Tensor
    sqrt_alphas_cumprod: Tensor
    sqrt_one_minus_alphas_cumprod: Tensor
    log_one_minus_alphas_cumprod: Tensor
    sqrt_recip_alphas_cumprod: Tensor
    sqrt_recipm1_alphas_cumprod: Tensor
    posterior_variance: Tensor
    posterior_log_variance_clipped: Tensor
    posterior_mean_coef1: Tensor
    posterior_mean_coef2: Tensor


def whole_betas(num_steps: int, schedule: str) -> Tensor:
    """Betas of all steps, (N,) float64."""
    if schedule == "linear":
        scale = 1000 / num_steps
        return torch.linspace(scale * FIRST_BETA, scale * LAST_BETA, num_steps, dtype=torch.float64)

    def left(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = [min(1 - left((i + 1) / num_steps) / left(i / num_steps), LARGEST_BETA) for i in range(num_steps)]
    return torch.tensor(betas, dtype=torch.float64)


@lru_cache(maxsize=8)
def make_tables(num_steps: int, schedule: str, spacing: str) -> Tables:
    """The tables of a process with only some steps kept."""
    steps = torch.tensor(kept_steps(num_steps, spacing))
    kept = (1 - whole_betas(num_steps, schedule)).cumprod(0)[steps]
    before = torch.cat([torch.ones(1, dtype=torch.float64), kept[:-1]])
    betas = (1 - kept / before).float()
    alphas = 1 - betas
    cumulative = alphas.cumprod(0)
    previous = torch.cat([torch.ones(1), cumulative[:-1]])
    variance = betas * (1 - previous) / (1 - cumulative)
    # The first is zero, which has no logarithm.
    clipped = torch.cat([variance[1:2], variance[1:]]).log() if len(steps) > 1 else variance[:0]
    return Tables(
        steps=steps,
        betas=betas,
        alphas_cumprod=cumulative,
        alphas_cumprod_prev=previous,
        alphas_cumprod_next=torch.cat([cumulative[1:], torch.zeros(1)]),
        sqrt_alphas_cumprod=cumulative.sqrt(),
        sqrt_one_minus_alphas_cumprod=(1 - cumulative).sqrt(),
        log_one_minus_alphas_cumprod=(1 - cumulative).log(),
        sqrt_recip_alphas_cumprod=(1 / cumulative).sqrt(),
        sqrt_recipm1_alphas_cumprod=(1 / cumulative - 1).sqrt(),
        posterior_variance=variance,
        posterior_log_variance_clipped=clipped,
        posterior_mean_coef1=betas * previous.sqrt() / (1 - cumulative),
        posterior_mean_coef2=(1 - previous) * alphas.sqrt() / (1 - cumulative),
    )


# -- SPEED -----------------------------------------------------------------------------------------------------------


class SpeedTables(NamedTuple):
    """How SPEED trains (Wang et al. 2024, arXiv 2405.17403): p: chance of a step, (K,); weights: of its squared error,
    (K,); meaningful: steps below it are mirrored among themselves."""

    p: Tensor
    weights: Tensor
    meaningful: int


def speed_tables(tables: Tables) -> SpeedTables:
    """Steps where the noise level changes fast are drawn more often."""
    level = tables.sqrt_one_minus_alphas_cumprod
    change = torch.gradient(level)[0]
    chances = (1e6 * (change - 1e-4)).tanh() + 1.5
    slow = (change < 5e-5).nonzero()
    meaningful = int(slow[0]) + 1 if len(slow) else len(level)
    return SpeedTables(chances / chances.sum(), 1 - tables.alphas_cumprod, meaningful)


def paired_steps(drawn: Tensor, count: int, meaningful: int) -> Tensor:
    """A batch of steps, (count,): the ones drawn, then the mirror image of each."""
    mirrored = torch.where(drawn < meaningful, meaningful - drawn, drawn - meaningful)
    return torch.cat([drawn, mirrored])[:count]
