"""Training with ColossalAI's Booster, in an environment of its own: `make colossal`."""

from __future__ import annotations

from sora_cli.plugin.hooks import hookimpl
from sora_cli.plugin.specs import ParallelismSpec


@hookimpl
def sora_parallelism() -> list[ParallelismSpec]:
    """The scheme "colossal"."""
    return [
        ParallelismSpec(
            name="colossal",
            summary="ColossalAI Booster: DDP, ZeRO-2, ZeRO-2 with sequence parallelism",
            target="sora_plugins.torch_parallel.parallel:parallelize",
            engine="sora_plugins.colossal.engine:make_engine",
            degrees=("data", "sequence"),
            tasks=("train",),
            needs=("colossalai",),
            extra="colossal",
        )
    ]
