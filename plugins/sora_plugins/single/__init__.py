"""One device, no parallelism: the reference that every other scheme is compared with."""

from __future__ import annotations

from sora_cli import ParallelismSpec, hookimpl


@hookimpl
def sora_parallelism() -> list[ParallelismSpec]:
    """The scheme "single"."""
    return [
        ParallelismSpec(
            name="single",
            summary="one device, no parallelism",
            aliases=("none",),
            target="sora_plugins.single.parallel:parallelize",
            engine="sora_cli.training.engine:Engine",
        )
    ]
