"""Rectified flow: the sampler and objective of Open-Sora 1.2 and of nano."""

from __future__ import annotations

from sora_cli.plugin.hooks import hookimpl
from sora_cli.plugin.specs import SchedulerSpec


@hookimpl
def sora_schedulers() -> list[SchedulerSpec]:
    """The one scheduler of this plugin."""
    return [
        SchedulerSpec(
            name="rectified_flow",
            aliases=("rflow",),
            summary="straight paths between noise and data, steps of order 1 or 2, size-aware time shift",
            target="sora_plugins.rectified_flow.rectified_flow:RectifiedFlow",
            options="sora_plugins.rectified_flow.config:RectifiedFlowOptions",
            prediction="velocity",
            default_steps=30,
            remembered=("num_timesteps", "use_timestep_transform"),
        )
    ]
