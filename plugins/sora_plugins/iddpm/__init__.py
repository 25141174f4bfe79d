"""Discrete diffusion with learned variance: the sampler and objective of Open-Sora 1.0 and 1.1."""

from __future__ import annotations

from sora_cli.plugin.hooks import hookimpl
from sora_cli.plugin.specs import SchedulerSpec


@hookimpl
def sora_schedulers() -> list[SchedulerSpec]:
    """The one scheduler of this plugin."""
    return [
        SchedulerSpec(
            name="iddpm",
            summary="improved DDPM: discrete steps, learned variance, ancestral or DDIM sampling",
            target="sora_plugins.iddpm.iddpm:Iddpm",
            options="sora_plugins.iddpm.config:IddpmOptions",
            prediction="noise",
            default_steps=100,
            remembered=("diffusion_steps", "noise_schedule", "predict_xstart", "learn_sigma", "sigma_small"),
        )
    ]
