"""The processes of one run: which of them share a clip, and which make other clips."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed.device_mesh import DeviceMesh

#: Why training stops early; the last counts most.
STOP_REASONS = ("interrupted", "terminated")
#: How long a process waits for the others; loading a large text encoder in one of them can take minutes.
TIMEOUT = timedelta(minutes=30)


@dataclass(frozen=True)
class Team:
    """This process among those of a run. The default is a run of one process.

    data_rank of data_size groups make different batches; the sequence_size processes of a group share each call of the
    network. mesh: with the dimensions "data" and "sequence"; None for one process.
    """

    data_rank: int = 0
    data_size: int = 1
    sequence_rank: int = 0
    sequence_size: int = 1
    mesh: DeviceMesh | None = None

    @property
    def is_main(self) -> bool:
        """Whether this process is the first of all."""
        return self.data_rank == self.sequence_rank == 0

    @property
    def is_leader(self) -> bool:
        """Whether this process decodes and writes the clips of its group."""
        return self.sequence_rank == 0

    def takes(self, batch_index: int) -> bool:
        """Whether this group makes the batch of that number."""
        return batch_index % self.data_size == self.data_rank

    def share(self, latents: Tensor | None, step: int) -> tuple[Tensor | None, int]:
        """What the leader of the group has, for all of the group: latents to go on from, or None, and their step."""
        if self.mesh is None or self.sequence_size == 1:
            return latents, step
        import torch.distributed as dist

        group = self.mesh["sequence"].get_group()
        content = [(latents, step)]
        dist.broadcast_object_list(content, src=dist.get_global_rank(group, 0), group=group)
        return content[0]

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all processes."""
        if self.mesh is None:
            return values
        import torch.distributed as dist

        values = values.clone()
        dist.all_reduce(values)
        return values / dist.get_world_size()

    def gather(self, value: Any) -> list[Any]:
        """What every process has, by rank; all of them must ask."""
        if self.mesh is None:
            return [value]
        import torch.distributed as dist

        values = [None] * dist.get_world_size()
        dist.all_gather_object(values, value)
        return values

    def is_same(self, value: int) -> bool:
        """Whether a number is the same on all processes; all of them must ask."""
        if self.mesh is None:
            return True
        import torch
        import torch.distributed as dist

        ends = torch.tensor([value, -value], device=self.mesh.device_type)
        dist.all_reduce(ends, op=dist.ReduceOp.MAX)
        return int(ends[0]) == -int(ends[1])

    def agree(self, reason: str | None, reasons: Sequence[str] = STOP_REASONS) -> str | None:
        """The last of `reasons` that any process has; all processes must ask."""
        if self.mesh is None:
            return reason
        import torch
        import torch.distributed as dist

        places = [None, *reasons]
        place = torch.tensor(places.index(reason), device=self.mesh.device_type)
        dist.all_reduce(place, op=dist.ReduceOp.MAX)
        return places[int(place)]


def sequence_degree(num_processes: int, num_batches: int, asked: int | None) -> int:
    """Processes that share a clip: what was asked for, else all of them for a single batch and one for several."""
    if asked is not None:
        return asked
    return num_processes if num_batches == 1 else 1


def join_team(device_type: str, sequence: int) -> Team:
    """Meet the other processes that torchrun started, and find this one's place. sequence: processes per clip."""
    import torch
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh

    if device_type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device_type == "cuda" else "gloo", timeout=TIMEOUT)
    mesh = init_device_mesh(
        device_type, (dist.get_world_size() // sequence, sequence), mesh_dim_names=("data", "sequence")
    )
    data, shared = mesh["data"], mesh["sequence"]
    return Team(data.get_local_rank(), data.size(), shared.get_local_rank(), shared.size(), mesh)
