"""Weights by rule for the networks of the data tools: normal numbers from a generator seeded by the name."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor


def draws(key: str, count: int) -> np.ndarray:
    """The first numbers for a name, float64."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode())))
    return generator.standard_normal(count)


def filled(shapes: Mapping[str, Tensor], gain: float) -> dict[str, Tensor]:
    """float32 tensors for the names and shapes of a state dict (data_models.md section 0)."""
    tensors = {}
    for key, like in shapes.items():
        values = draws(key, math.prod(like.shape))
        if like.dim() >= 2:
            values = values * (gain / math.sqrt(math.prod(like.shape[1:])))
        elif key.endswith("bias"):
            values = values * 0.05
        elif "norm" in key:
            values = 1 + 0.1 * values
        else:
            values = 0.25 + 0.05 * values
        tensors[key] = torch.from_numpy(values.astype(np.float32)).reshape(like.shape)
    return tensors
