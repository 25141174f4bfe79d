"""Discrete diffusion with learned variance (Nichol and Dhariwal 2021, arXiv 2102.09672), as Open-Sora 1.0 and 1.1 train
and sample it: t counts the kept steps, 0 is the least noisy; the network is told the step of the whole process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sora_cli.conditioning.guidance import guided_call
from sora_cli.errors import UsageError
from sora_cli.plugin.protocols import DiffusionModel, SampleRequest
from sora_cli.training.losses import masked_mean

from .config import IddpmOptions
from .process import SpeedTables, Tables, kept_steps, make_tables, paired_steps, speed_tables

#: Half the width of a level of an 8-bit picture in [-1, 1].
HALF_LEVEL = 1 / 255
#: Smallest argument of a logarithm.
FLOOR = 1e-12


class Posterior(NamedTuple):
    """What the network says of the step before: mean and log variance of it, and the data it expects."""

    mean: Tensor
    log_variance: Tensor
    pred_xstart: Tensor


class Iddpm:
    """The scheduler; holds options only."""

    def __init__(self, options: IddpmOptions | Mapping[str, Any] | None = None) -> None:
        if not isinstance(options, IddpmOptions):
            options = IddpmOptions(**(options or {}))
        self.options = options

    def tables(self, spacing: str | None = None) -> Tables:
        """Coefficients of the kept steps. spacing: instead of the options'."""
        chosen = self.options.timestep_respacing if spacing is None else spacing
        return make_tables(self.options.diffusion_steps, self.options.noise_schedule, chosen)

    # --- one step ---------------------------------------------------------------------------------------------------

    def posterior(self, tables: Tables, output: Tensor, x: Tensor, t: Tensor, *, clip: bool = False) -> Posterior:
        """Read the network's output (B, 2C or C, ...) at x (B, C, ...) and t (B,). clip: the data is in [-1, 1]."""
        channels = x.shape[1]
        if self.options.learn_sigma and output.shape[1] != 2 * channels:
            raise UsageError("this network predicts no variance", hint="say so: scheduler option learn_sigma=false")
        prediction = output[:, :channels]
        if self.options.predict_xstart:
            data = prediction
        else:
            data = (
                _at(tables.sqrt_recip_alphas_cumprod, t, x) * x
                - _at(tables.sqrt_recipm1_alphas_cumprod, t, x) * prediction
            )
        if clip:
            data = data.clamp(-1, 1)
        mean = _at(tables.posterior_mean_coef1, t, x) * data + _at(tables.posterior_mean_coef2, t, x) * x
        return Posterior(mean, self._log_variance(tables, output[:, channels:], x, t), data)

    def _log_variance(self, tables: Tables, values: Tensor, x: Tensor, t: Tensor) -> Tensor:
        smallest = tables.posterior_log_variance_clipped
        if not self.options.learn_sigma:
            first = tables.posterior_variance[1:2]
            table = smallest if self.options.sigma_small else torch.cat([first, tables.betas[1:]]).log()
            return _at(table, t, x).expand_as(x)
        share = (values + 1) / 2
        return share * _at(tables.betas.log(), t, x) + (1 - share) * _at(smallest, t, x)

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor, tables: Tables | None = None) -> Tensor:
        """x_t for t (B,): data and noise at that step."""
        tables = tables or self.tables()
        data = _at(tables.sqrt_alphas_cumprod, t, x0) * x0
        return data + _at(tables.sqrt_one_minus_alphas_cumprod, t, x0) * noise

    def ddim_step(self, tables: Tables, found: Posterior, x: Tensor, t: Tensor, noise: Tensor, eta: float) -> Tensor:
        """The step before by DDIM (Song et al. 2021, arXiv 2010.02502); eta 0 uses no noise."""
        noise_there = (_at(tables.sqrt_recip_alphas_cumprod, t, x) * x - found.pred_xstart) / _at(
            tables.sqrt_recipm1_alphas_cumprod, t, x
        )
        here, before = _at(tables.alphas_cumprod, t, x), _at(tables.alphas_cumprod_prev, t, x)
        sigma = eta * ((1 - before) / (1 - here)).sqrt() * (1 - here / before).sqrt()
        mean = found.pred_xstart * before.sqrt() + (1 - before - sigma**2).sqrt() * noise_there
        return mean + (t != 0).view(-1, *[1] * (x.dim() - 1)) * sigma * noise

    # --- sampling ---------------------------------------------------------------------------------------------------

    def spacing(self, steps: int) -> str:
        """The kept steps of a sampler: as the options say, else `steps` of them. Raises UsageError when they differ."""
        chosen = self.options.timestep_respacing
        if not chosen:
            if steps > self.options.diffusion_steps:
                raise UsageError(
                    f"{steps} steps of a process of {self.options.diffusion_steps}", hint="use fewer --steps"
                )
            return str(steps)
        kept = len(kept_steps(self.options.diffusion_steps, chosen))
        if kept != steps:
            raise UsageError(
                f"timestep_respacing {chosen!r} keeps {kept} steps, not {steps}", hint=f"use --steps {kept}"
            )
        return chosen

    def schedule(
        self, steps: int, *, height: int, width: int, num_frames: int, latent_frames: int | None = None
    ) -> Tensor:
        """The steps told to the network, (steps,) float32, decreasing; sizes do not matter here."""
        return self.tables(self.spacing(steps)).steps.flip(0).float()

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
        """From noise to latents (n, C, T, H, W) float32, with classifier-free guidance on the first channels.

        Noise of step i (0 is the noisiest) is request.draw_noise(i); frames that start being edited there get
        request.draw_noise(-1 - i). Frames with frame_mask 0 are kept but for the last step, which adds the noise of
        step 0 to them and takes it away again: so the released models are sampled. start_step resumes with
        request.noise as the latents after that many steps.
        """
        if request.draw_noise is None:
            raise ValueError("this scheduler draws noise at every step: it needs draw_noise")
        tables = self.tables(self.spacing(steps))
        count = len(tables.steps)
        if count == 1 and self.options.learn_sigma:
            raise UsageError("a single step has no variance to learn", hint="use --steps 2 or more")
        call = self._guided(model, request, guidance)
        x, mask = request.noise.float(), request.frame_mask
        if mask is not None and bool((mask == 1).all()):
            mask = None
        limit = None if mask is None else (mask.float() * count).long()
        for index in range(start_step, count):
            step = count - 1 - index
            t = torch.full((len(x),), step, device=x.device)
            x_mask, kept = None, x
            if limit is not None:
                noisy = self.add_noise(x, request.draw_noise(-1 - index).to(x), t, tables)
                x = torch.where((limit == step)[:, None, :, None, None], noisy, x)
                x_mask = limit > step
            found = self.posterior(tables, call(x, tables.steps[step].to(x.device), x_mask), x, t)
            noise = request.draw_noise(index).to(x)
            if self.options.ddim_eta is not None:
                x = self.ddim_step(tables, found, x, t, noise, self.options.ddim_eta)
            else:
                x = found.mean + (step != 0) * (found.log_variance / 2).exp() * noise
            if limit is not None:
                x = torch.where((limit < step)[:, None, :, None, None], kept, x)
            if on_step is not None:
                on_step(index + 1, x)
        return x

    def _guided(
        self, model: DiffusionModel, request: SampleRequest, guidance: float
    ) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
        """A function (x, step, x_mask) -> the network's output for the text, its first channels guided."""
        call, is_guided = guided_call(model, request, guidance)

        def output(x: Tensor, step: Tensor, x_mask: Tensor | None) -> Tensor:
            both = call(x, step, x_mask).float()
            if not is_guided:
                return both
            conditional, unconditional = both.chunk(2)
            guided = self.options.cfg_channel or x.shape[1]
            first = unconditional[:, :guided] + guidance * (conditional[:, :guided] - unconditional[:, :guided])
            return torch.cat([first, conditional[:, guided:]], dim=1)

        return output

    @property
    def last_time(self) -> float:
        """The noisiest step."""
        return float(len(self.tables().steps) - 1)

    # --- training ---------------------------------------------------------------------------------------------------

    @cached_property
    def speed(self) -> SpeedTables:
        """Chances and weights of the steps with SPEED."""
        return speed_tables(self.tables())

    def draw_times(self, batch: int, *, generator: torch.Generator | None = None, **sizes: Any) -> Tensor:
        """Draw training steps (batch,) int64, uniform or as SPEED does; sizes do not matter here."""
        count = len(self.tables().steps)
        if not self.options.speed:
            return torch.randint(count, (batch,), generator=generator)
        drawn = self.speed.p.multinomial(batch // 2 + 1, replacement=True, generator=generator)
        return paired_steps(drawn, batch, self.speed.meaningful).clamp(0, count - 1)

    def loss(
        self,
        model: DiffusionModel,
        x0: Tensor,
        *,
        noise: Tensor,
        t: Tensor,
        frame_mask: Tensor | None = None,
        weights: Tensor | None = None,
        **conditioning: Any,
    ) -> Tensor:
        """Loss per sample, (B,): squared error of the noise and, for a learned variance, the variational bound in bits.

        x0, noise: (B, C, T, H, W). t: (B,) int64, kept steps. frame_mask: (B, T) bool, True = learn; other frames are
        given with the noise of step 0, and not counted. weights: (K,) of the squared error, by default SPEED's if on.
        """
        return self.losses(model, x0, noise=noise, t=t, frame_mask=frame_mask, weights=weights, **conditioning)["loss"]

    def losses(
        self,
        model: DiffusionModel,
        x0: Tensor,
        *,
        noise: Tensor,
        t: Tensor,
        frame_mask: Tensor | None = None,
        weights: Tensor | None = None,
        **conditioning: Any,
    ) -> dict[str, Tensor]:
        """As `loss`, with its parts `mse` and `vb`."""
        options, tables = self.options, self.tables()
        t = t.long()
        x_t = self.add_noise(x0, noise, t)
        if frame_mask is not None:
            if options.use_kl:
                raise UsageError("use_kl does not go with masks of frames")
            given = self.add_noise(x0, noise, torch.zeros_like(t))
            x_t = torch.where(frame_mask[:, None, :, None, None], x_t, given)
            conditioning = {**conditioning, "x_mask": frame_mask}
        output = model(x_t, tables.steps.to(t.device)[t], **conditioning).float()
        if options.use_kl:
            return {"loss": self._bound(tables, output, x0, x_t, t, None) * len(tables.steps)}
        channels = x0.shape[1]
        error = ((x0 if options.predict_xstart else noise) - output[:, :channels]).square()
        if weights is None and options.speed:
            weights = self.speed.weights
        if weights is not None:
            error = error * _at(weights, t, error)
        found = {"mse": masked_mean(error, frame_mask)}
        if options.learn_sigma:
            # The bound teaches the variance alone.
            detached = torch.cat([output[:, :channels].detach(), output[:, channels:]], dim=1)
            found["vb"] = self._bound(tables, detached, x0, x_t, t, frame_mask)
            if options.rescale_learned_sigmas:
                found["vb"] = found["vb"] * len(tables.steps) / 1000
        return {**found, "loss": sum(found.values(), torch.zeros_like(found["mse"]))}

    def _bound(
        self, tables: Tables, output: Tensor, x0: Tensor, x_t: Tensor, t: Tensor, frame_mask: Tensor | None
    ) -> Tensor:
        """The term of the variational bound at t, in bits per dimension, (B,)."""
        found = self.posterior(tables, output, x_t, t)
        true_mean = _at(tables.posterior_mean_coef1, t, x0) * x0 + _at(tables.posterior_mean_coef2, t, x0) * x_t
        true_log = _at(tables.posterior_log_variance_clipped, t, x0)
        divergence = normal_kl(true_mean, true_log, found.mean, found.log_variance)
        surprise = -discretized_log_likelihood(x0, found.mean, found.log_variance)
        bits = torch.where((t == 0).view(-1, *[1] * (x0.dim() - 1)), surprise, divergence)
        return masked_mean(bits, frame_mask) / math.log(2)


def normal_kl(mean1: Tensor, log1: Tensor, mean2: Tensor, log2: Tensor) -> Tensor:
    """Kullback-Leibler divergence of two normal distributions, in nats; log1, log2: of the variances."""
    return 0.5 * (-1 + log2 - log1 + (log1 - log2).exp() + (mean1 - mean2).square() * (-log2).exp())


def discretized_log_likelihood(x: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """Log probability of the 8-bit level around x in [-1, 1] under a normal distribution, in nats."""
    scale, centred = (-log_variance / 2).exp(), x - mean
    above = _cumulative(scale * (centred + HALF_LEVEL))
    below = _cumulative(scale * (centred - HALF_LEVEL))
    inside = (above - below).clamp(min=FLOOR).log()
    lowest, highest = above.clamp(min=FLOOR).log(), (1 - below).clamp(min=FLOOR).log()
    return torch.where(x < -0.999, lowest, torch.where(x > 0.999, highest, inside))


def _cumulative(z: Tensor) -> Tensor:
    """The standard normal distribution function, approximately."""
    return 0.5 * (1 + (math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)).tanh())


def _at(table: Tensor, t: Tensor, like: Tensor) -> Tensor:
    """Entries of a table at t (B,), to multiply (B, ...)."""
    return table.to(like.device)[t.to(like.device)].view(-1, *[1] * (like.dim() - 1))
