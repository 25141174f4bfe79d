"""Weights by rule, where storing them would be large: each element is a hash of its parameter's name and its place."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn


def fill(seed: int, key: str, shape: tuple[int, ...], *, mean: float, std: float) -> Tensor:
    """A float32 tensor, uniform with this mean and deviation (vae.md section 14)."""
    start = np.frombuffer(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8], dtype="<u8")[0]
    with np.errstate(over="ignore"):
        v = np.arange(1, math.prod(shape) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + start
        v = (v ^ (v >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        v = (v ^ (v >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        v ^= v >> np.uint64(31)
    u = (v >> np.uint64(40)).astype(np.float64) / 2**24
    return torch.from_numpy((mean + std * math.sqrt(3) * (2 * u - 1)).astype(np.float32)).reshape(shape)


def standard(network: nn.Module, seed: int, gain: float, keys: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The "standard" rule for tensors of the network. keys: name -> shape."""
    norms = {
        f"{name}.weight"
        for name, module in network.named_modules()
        if isinstance(module, (nn.GroupNorm, nn.BatchNorm2d, nn.BatchNorm3d))
    }
    tensors = {}
    for key, shape in keys.items():
        if len(shape) >= 2:
            mean, std = 0.0, gain / math.sqrt(math.prod(shape[1:]))
        else:
            mean, std = (1.0, 0.2) if key in norms else (0.0, 0.1)
        tensors[key] = fill(seed, key, tuple(shape), mean=mean, std=std)
    return tensors


def lpips_weights(seed: int, keys: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The rule of the LPIPS groups: deviation sqrt(2 / fan in), biases 0.1, channel weights |value|. keys: shapes."""
    tensors = {}
    for key, shape in keys.items():
        if key.startswith("lin"):
            tensors[key] = fill(seed, key, tuple(shape), mean=0.0, std=1.0).abs()
        else:
            std = 0.1 if len(shape) == 1 else math.sqrt(2 / math.prod(shape[1:]))
            tensors[key] = fill(seed, key, tuple(shape), mean=0.0, std=std)
    return tensors
