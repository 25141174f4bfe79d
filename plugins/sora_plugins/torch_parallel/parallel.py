"""What "torch" does to a network that only samples: split its calls over the processes that share a clip."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sora_cli.errors import UsageError

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


def parallelize(model: Any, mesh: DeviceMesh | None, shard: Callable[[Any, Any], None] | None) -> Any:
    """The model, its calls split over the "sequence" dimension of the mesh when that has more than one process.

    Raises UsageError for a model that cannot be split. Groups along "data" work alone and need nothing.
    """
    if mesh is None or mesh["sequence"].size() == 1:
        return model
    if shard is None:
        raise UsageError(
            "this model cannot be split over processes that share a clip",
            hint="use --sequence-parallel 1: every process then makes clips of its own",
        )
    shard(model, mesh["sequence"].get_group())
    return model
