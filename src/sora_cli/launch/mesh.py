"""The processes of one run: which of them share a clip, and which make other clips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed.device_mesh import DeviceMesh


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
    def is_leader(self) -> bool:
        """Whether this process decodes and writes the clips of its group."""
        return self.sequence_rank == 0

    def takes(self, batch_index: int) -> bool:
        """Whether this group makes the batch of that number."""
        return batch_index % self.data_size == self.data_rank

    def share(self, latents: Tensor | None, step: int) -> tuple[Tensor | None, int]:
        """What the leader of the group has, for all of the group: latents to go on from, or None, and their step."""
        if self.sequence_size == 1:
            return latents, step
        raise NotImplementedError
