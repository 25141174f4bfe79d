"""DPM-Solver++ (Lu et al. 2022, arXiv 2211.01095) as DiT, Latte and PixArt are sampled: data prediction, multistep,
order 2, equal steps of time, the first and the last of order 1, on the 1000 linear steps of the noise process.

Not through diffusers: its solver takes whole steps of the process, while these models are asked at fractions of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sora_cli.conditioning.guidance import guided_call
from sora_cli.errors import UsageError
from sora_cli.plugin.protocols import DiffusionModel, SampleRequest

PROCESS_STEPS = 1000
FIRST_BETA, LAST_BETA = 1e-4, 2e-2


class Points(NamedTuple):
    """The process at steps + 1 times, from the noisiest, each (steps + 1,) float32.

    times: in (0, 1]. log_alphas: logarithm of what multiplies the data. sigmas: what multiplies the noise. lambdas:
    logarithm of their ratio, growing. model_times: what the network is told, 999 down to 0.
    """

    times: Tensor
    log_alphas: Tensor
    sigmas: Tensor
    lambdas: Tensor
    model_times: Tensor


@lru_cache(maxsize=8)
def make_points(steps: int) -> Points:
    """The times of a sampler of so many steps. float32, as the released samples were made."""
    betas = np.linspace(FIRST_BETA, LAST_BETA, PROCESS_STEPS)
    knots = (0.5 * np.log1p(-betas).cumsum()).astype(np.float32)
    knot_times = np.arange(1, PROCESS_STEPS + 1) / PROCESS_STEPS
    times = torch.linspace(1.0, 1 / PROCESS_STEPS, steps + 1)
    log_alphas = torch.from_numpy(np.interp(times.numpy(), knot_times, knots).astype(np.float32))
    noise_share = 1 - (2 * log_alphas).exp()
    return Points(
        times,
        log_alphas,
        noise_share.sqrt(),
        log_alphas - 0.5 * noise_share.log(),
        (times - 1 / PROCESS_STEPS) * PROCESS_STEPS,
    )


class DPMSolver:
    """The scheduler. It has no options and cannot train."""

    def __init__(self, options: None = None) -> None:
        """options: there are none."""

    def schedule(
        self, steps: int, *, height: int, width: int, num_frames: int, latent_frames: int | None = None
    ) -> Tensor:
        """The times told to the network, (steps,) float32, decreasing fractions of steps; sizes do not matter here."""
        return make_points(steps).model_times[:-1].clone()

    @torch.no_grad()
    def sample(
        self,
        model: DiffusionModel,
        request: SampleRequest,
        *,
        steps: int,
        guidance: float,
        start_step: int = 0,
        on_step: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        """From noise to latents (n, C, T, H, W) float32 with classifier-free guidance; the noise is only that of the
        start.

        A step looks back at what the step before saw, so what on_step gets before the last step are the latents and,
        behind them on the channel axis, that prediction of the data: (n, 2C, T, H, W). With start_step, request.noise
        is just that. Raises UsageError for fewer than 2 steps, and for frames that are to be kept or edited.
        """
        if steps < 2:
            raise UsageError("dpm-solver takes at least 2 steps", hint="use --steps 2 or more")
        mask = request.frame_mask
        if mask is not None and bool((mask < 1).any()):
            raise UsageError(
                "dpm-solver can neither keep nor edit given frames", hint="use another scheduler, such as iddpm"
            )
        points, x, before = make_points(steps), request.noise.float(), None
        if 0 < start_step < steps:
            x, before = x.chunk(2, dim=1)
        predict = guided_noise(model, request, guidance)
        lambdas = points.lambdas.double().tolist()
        sigmas, alphas = points.sigmas.double().tolist(), points.log_alphas.double().exp().tolist()
        for index in range(start_step, steps):
            noise = predict(x, points.model_times[index].to(x.device))
            data = (x - sigmas[index] * noise) / alphas[index]
            width = lambdas[index + 1] - lambdas[index]
            seen = data
            if before is not None and index < steps - 1:
                # What the data will be half a step on, along the line through this prediction and the last.
                seen = data + 0.5 * width / (lambdas[index] - lambdas[index - 1]) * (data - before)
            x = sigmas[index + 1] / sigmas[index] * x - alphas[index + 1] * math.expm1(-width) * seen
            before = data
            if on_step is not None:
                on_step(index + 1, x if index == steps - 1 else torch.cat([x, data], dim=1))
        return x


def guided_noise(model: DiffusionModel, request: SampleRequest, guidance: float) -> Callable[[Tensor, Tensor], Tensor]:
    """A function (x, t) -> predicted noise with classifier-free guidance; a predicted variance is left out."""
    call, is_guided = guided_call(model, request, guidance)

    def noise(x: Tensor, t: Tensor) -> Tensor:
        out = call(x, t, None)[:, : x.shape[1]].float()
        if not is_guided:
            return out
        conditional, unconditional = out.chunk(2)
        return unconditional + guidance * (conditional - unconditional)

    return noise
