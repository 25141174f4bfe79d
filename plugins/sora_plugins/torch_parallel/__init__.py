"""Several devices with torch.distributed: groups that make different clips, and processes that share one."""

from __future__ import annotations

from sora_cli.plugin.hooks import hookimpl
from sora_cli.plugin.specs import ParallelismSpec


@hookimpl
def sora_parallelism() -> list[ParallelismSpec]:
    """The scheme "torch"."""
    return [
        ParallelismSpec(
            name="torch",
            summary="torch.distributed: clips over data groups, one long clip over a sequence group; DDP and FSDP2",
            target="sora_plugins.torch_parallel.parallel:parallelize",
            engine="sora_plugins.torch_parallel.engine:make_engine",
            degrees=("data", "sequence"),
        )
    ]
