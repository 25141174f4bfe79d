"""nano's diffusion model: the shared STDiT3 on a grid of tokens that is moved from step to step.

A token of nano covers 32 x 32 pixels, and where two of them meet an edge is left. Its place changes with every step of
sampling, so what one step leaves at a border, the next has in the middle of a token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sora_plugins.stdit.options import STDiTOptions
from sora_plugins.stdit.stdit3 import STDiT3, STDiT3Config

#: Latent positions that the grid is moved down and to the right by.
OFFSETS = ((0, 0), (1, 1), (0, 1), (1, 0))
#: Turns of the offsets per unit of time, so that steps that follow each other rarely share one and all are used.
TURNS = 0.0725


class NanoModel(STDiT3):
    """STDiT3 with a grid offset that is drawn in training and follows from the time in sampling."""

    def forward(self, x: Tensor, timestep: Tensor, *inputs: Any, **conditioning: Any) -> Tensor:
        """As STDiT3. The offset is that of the first row's time; the rows of a sampling step share it."""
        down, right = self._offset(timestep)
        moved = F.pad(x, (right, 0, down, 0))
        out: Tensor = super().forward(moved, timestep, *inputs, **conditioning)[..., down:, right:]
        return out

    def _offset(self, timestep: Tensor) -> tuple[int, int]:
        if self.training:
            return OFFSETS[int(torch.randint(len(OFFSETS), ()))]
        return OFFSETS[int(float(timestep[0]) * TURNS % 1.0 * len(OFFSETS))]


def build(config: Mapping[str, Any], options: STDiTOptions | None = None) -> NanoModel:
    """The network with initial weights."""
    return NanoModel(STDiT3Config.from_mapping(config), options)
