"""What "single" does to a model: nothing, after checking that there is one device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sora_cli import UsageError

if TYPE_CHECKING:
    from torch import nn
    from torch.distributed.device_mesh import DeviceMesh


def parallelize(model: nn.Module, mesh: DeviceMesh | None, config: Any = None) -> nn.Module:
    """The model, unchanged.

    mesh: None without torch.distributed. config: the hardware settings, which one device does not need.
    Raises UsageError when the mesh has more than one device.
    """
    count = 1 if mesh is None else mesh.size()
    if count > 1:
        raise UsageError(
            f"the parallelism 'single' runs on one device, not on {count}",
            hint="leave out --gpus, or choose another one: `sora plugins list --kind parallelism`",
        )
    return model
