"""Rectified flow (Liu et al. 2022, arXiv 2209.03003) as Open-Sora 1.2 trains and samples it.

A latent at time t in [0, N] is x_t = (1 - t/N) x_0 + (t/N) noise; the network predicts the velocity x_0 - noise,
pointing from noise to data. t = N is pure noise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from sora_cli.conditioning.guidance import guided_call
from sora_cli.plugin.protocols import DiffusionModel, SampleRequest
from sora_cli.training.losses import masked_mean

from .config import RectifiedFlowOptions

BASE_AREA = 512 * 512  # pixels of the size whose times are not shifted
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def shift_frames(num_frames: Tensor, latent_frames: Tensor | None) -> Tensor:
    """The number of latent frames that the time shift uses, same shape and dtype as num_frames.

    Images count 1, each sample by itself. From 17 frames on it is the reference's (num_frames // 17) * 5, for every
    autoencoder; between, where that gives 0, the true number of latent frames.
    """
    frames = torch.where(num_frames == 1, torch.ones_like(num_frames), (num_frames // 17) * 5)
    if bool((frames > 0).all()):
        return frames
    if latent_frames is None:
        raise ValueError(f"{num_frames.tolist()} frames: the time shift needs the number of latent frames below 17")
    return torch.where(frames > 0, frames, latent_frames.to(num_frames))


def transform_timesteps(
    t: Tensor,
    height: Tensor,
    width: Tensor,
    num_frames: Tensor,
    *,
    latent_frames: Tensor | None = None,
    scale: float = 1.0,
    num_timesteps: int = 1000,
) -> Tensor:
    """Shift times towards noise for large and long videos: u -> r u / (1 + (r - 1) u), u = t / N.

    t: (K,) float32 in [0, N]. height, width, num_frames: (1,) or (K,), pixels and video frames; r is computed in
    their dtype (float32, or bfloat16 as in the reference's bf16 runs; float16 is widened). r is the square root of
    area / 512^2 times the square root of the latent frames times `scale`. Returns (K,) float32, at most N.
    Source: the resolution-dependent shift of Esser et al. 2024, arXiv 2403.03206, eq. 23.
    """
    if height.dtype == torch.float16:
        height, width, num_frames = height.float(), width.float(), num_frames.float()
    space = (height * width / BASE_AREA).sqrt()
    time = shift_frames(num_frames, latent_frames).sqrt()
    ratio = space * time * scale
    u = t.float() / num_timesteps
    shifted = ratio * u / (1 + (ratio - 1) * u) * num_timesteps
    # Rounding can push the first time just above N, which would freeze every frame of the first masked step.
    return shifted.float().clamp(max=num_timesteps)


class RectifiedFlow:
    """The scheduler; holds options only."""

    def __init__(self, options: RectifiedFlowOptions | Mapping[str, Any] | None = None) -> None:
        if not isinstance(options, RectifiedFlowOptions):
            options = RectifiedFlowOptions(**(options or {}))
        self.options = options

    # --- sampling -------------------------------------------------------------------------------------------

    def schedule(
        self, steps: int, *, height: int, width: int, num_frames: int, latent_frames: int | None = None
    ) -> Tensor:
        """The times given to the network, (steps,) float32, decreasing from num_timesteps."""
        options = self.options
        t = (1.0 - torch.arange(steps, dtype=torch.float64) / steps) * options.num_timesteps
        if options.use_discrete_timesteps:
            t = t.round()
        t = t.float()
        if not options.use_timestep_transform:
            return t
        dtype = _DTYPES[options.info_dtype]
        return transform_timesteps(
            t,
            torch.tensor([height], dtype=dtype),
            torch.tensor([width], dtype=dtype),
            torch.tensor([num_frames], dtype=dtype),
            latent_frames=None if latent_frames is None else torch.tensor([latent_frames], dtype=dtype),
            scale=options.sampling_scale,
            num_timesteps=options.num_timesteps,
        )

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
        """Steps from noise to latents with classifier-free guidance. Returns (n, C, T, H, W) float32.

        Frames with frame_mask 0 come out as they went in and are shown to the network as clean. Frames with an edit
        ratio r between stay clean until the time falls to r * N, are re-noised to that time and generated from there.
        start_step resumes with request.noise as the latents after that many steps.

        An Adams-Bashforth step looks back at the velocity of the step before, so what on_step gets before the last step
        are the latents and, behind them on the channel axis, that velocity: (n, 2C, T, H, W). With start_step,
        request.noise is just that.
        """
        number = self.options.num_timesteps
        times = self.schedule(
            steps,
            height=request.height,
            width=request.width,
            num_frames=request.num_frames,
            latent_frames=request.latent_frames,
        ).to(request.noise.device)
        velocity = guided_velocity(model, request, guidance)
        z, before = request.noise, None
        looks_back = self.options.solver == "adams-bashforth"
        if looks_back and 0 < start_step < steps:
            z, before = z.chunk(2, dim=1)
        frame_mask = request.frame_mask
        if frame_mask is not None and bool((frame_mask == 1).all()):
            frame_mask = None
        for step in range(start_step, steps):
            t = times[step]
            next_t = times[step + 1] if step + 1 < steps else torch.zeros_like(t)
            active, was_noise = None, None
            kept = z
            if frame_mask is not None:
                active = frame_mask * number >= t
                was_noise = frame_mask == 1 if step == 0 else frame_mask * number >= times[step - 1]
                z = self._renoise(z, active & ~was_noise, t, step, request)
            slope = velocity(z, t, active)
            taken = slope
            if before is not None and times[step - 1] > t:
                # The velocity half a step on, along the line through this one and the last.
                taken = slope + 0.5 * (t - next_t) / (times[step - 1] - t) * (slope - before)
                if was_noise is not None:  # a frame that starts being edited now has no velocity before
                    taken = torch.where(was_noise[:, None, :, None, None], taken, slope)
            z = z + taken * ((t - next_t) / number)
            before = slope if looks_back else None
            if active is not None:
                z = torch.where(active[:, None, :, None, None], z, kept)
            if on_step is not None:
                on_step(step + 1, torch.cat([z, slope], dim=1) if looks_back and step + 1 < steps else z)
        return z

    def _renoise(self, z: Tensor, starting: Tensor, t: Tensor, step: int, request: SampleRequest) -> Tensor:
        """Put noise of time t on the frames (n, T) that start being edited at this step."""
        if not bool(starting.any()):
            return z
        if request.draw_noise is None:
            raise ValueError("an edit ratio between 0 and 1 needs draw_noise")
        noisy = self.add_noise(z, request.draw_noise(step).to(z), t.expand(len(z)))
        return torch.where(starting[:, None, :, None, None], noisy, z)

    @property
    def last_time(self) -> float:
        """The time of pure noise."""
        return float(self.options.num_timesteps)

    # --- training -------------------------------------------------------------------------------------------

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_t for t (B,): (1 - t/N) x_0 + (t/N) noise."""
        weight = (1 - t.float() / self.options.num_timesteps).view(-1, *[1] * (x0.dim() - 1))
        return weight * x0 + (1 - weight) * noise

    def times_from_draws(self, draws: Tensor) -> Tensor:
        """Training times from base draws (B,): uniform in [0, 1) or standard normal, by `sample_method`."""
        options = self.options
        if options.use_discrete_timesteps:
            return (draws * options.num_timesteps).floor()
        if options.sample_method == "logit-normal":
            info = torch.finfo(torch.float32)
            logit = options.loc + options.scale * draws.float()
            return options.num_timesteps * logit.sigmoid().clamp(info.tiny, 1 - info.eps)
        return options.num_timesteps * draws

    def draw_times(
        self,
        batch: int,
        *,
        height: Tensor | None = None,
        width: Tensor | None = None,
        num_frames: Tensor | None = None,
        latent_frames: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draw training times (batch,), shifted by the size information when the transform is on.

        height, width, num_frames, latent_frames: (batch,) on the device where the times are wanted; the shift is
        computed in `info_dtype`. generator: of the CPU, so that every device trains on the same times.
        """
        draw = torch.randn if self.options.sample_method == "logit-normal" else torch.rand
        t = self.times_from_draws(draw(batch, generator=generator))
        if not self.options.use_timestep_transform:
            return t
        if height is None or width is None or num_frames is None:
            raise ValueError("the time shift needs height, width and num_frames")
        dtype = _DTYPES[self.options.info_dtype]
        return transform_timesteps(
            t.to(height.device),
            height.to(dtype),
            width.to(dtype),
            num_frames.to(dtype),
            latent_frames=None if latent_frames is None else latent_frames.to(dtype),
            scale=self.options.transform_scale,
            num_timesteps=self.options.num_timesteps,
        )

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
        """Mean squared error of the velocity per sample, (B,).

        x0, noise: (B, C, T, H, W). t: (B,) in [0, N], used as given. frame_mask: (B, T) bool, True = learn; other
        frames are given clean and not counted, at least one per row must be True. weights: (N,) looked up at integer t.
        """
        x_t = self.add_noise(x0, noise, t)
        if frame_mask is not None:
            if not bool(frame_mask.any(dim=1).all()):
                raise ValueError("a training mask without any frame to learn")
            x_t = torch.where(frame_mask[:, None, :, None, None], x_t, x0)
            conditioning = {**conditioning, "x_mask": frame_mask}
        prediction = model(x_t, t, **conditioning)[:, : x0.shape[1]]
        error = (prediction.float() - (x0 - noise)).square()
        if weights is not None:
            error = error * weights[t.long()].view(-1, 1, 1, 1, 1)
        return masked_mean(error, frame_mask)


def guided_velocity(
    model: DiffusionModel, request: SampleRequest, guidance: float
) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    """A function (z, t, active) -> velocity with classifier-free guidance (Ho and Salimans 2022)."""
    call, is_guided = guided_call(model, request, guidance)

    def velocity(z: Tensor, t: Tensor, active: Tensor | None) -> Tensor:
        out = call(z, t, active)[:, : z.shape[1]].float()
        if not is_guided:
            return out
        conditional, unconditional = out.chunk(2)
        return unconditional + guidance * (conditional - unconditional)

    return velocity
