"""DPM-Solver++: few deterministic steps for any model that predicts noise."""

from __future__ import annotations

from sora_cli.plugin.hooks import hookimpl
from sora_cli.plugin.specs import SchedulerSpec


@hookimpl
def sora_schedulers() -> list[SchedulerSpec]:
    """The one scheduler of this plugin."""
    return [
        SchedulerSpec(
            name="dpm-solver",
            summary="DPM-Solver++ of order 2: few steps, no noise but that of the start; samples only",
            target="sora_plugins.dpm_solver.dpm_solver:DPMSolver",
            prediction="noise",
            default_steps=20,
            trained_by="iddpm",
        )
    ]
