"""Position tables, patches and their way back, as the image-family networks have them.

Tables are computed for the size at hand and are not part of any checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

WITHIN_FRAMES, OVER_FRAMES = 2, 1  # the axis of (B, T, S, D) that attention runs along

#: Tables kept at a time; one of 1152 channels at 2048 x 2048 pixels takes 72 MiB.
MAX_TABLES = 8


def _code(positions: Tensor, dim: int) -> Tensor:
    """Sine half, then cosine half (n, dim) of positions (n,), in float64."""
    steps = torch.arange(dim // 2, dtype=torch.float64)
    angles = positions.double()[:, None] * 10000.0 ** (-steps / (dim / 2))
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


@lru_cache(maxsize=MAX_TABLES)
def plane_table(
    dim: int, rows: int, columns: int, *, scale: float = 1.0, base: int | None = None, device: torch.device | str
) -> Tensor:
    """Positions in a frame (rows * columns, dim), float32: code of the column first, then of the row.

    Indices are divided by `scale` and, with `base`, stretched to a base x base grid. Coordinates are rounded to
    float32, angles are not: the tables of released files come out to the last bits.
    """
    column = torch.arange(columns, dtype=torch.float32) / scale
    row = torch.arange(rows, dtype=torch.float32) / scale
    if base is not None:
        column, row = column * (base / columns), row * (base / rows)
    across = _code(column, dim // 2)[None].expand(rows, -1, -1)
    down = _code(row, dim // 2)[:, None].expand(-1, columns, -1)
    return torch.cat([across, down], dim=-1).reshape(rows * columns, dim).float().to(device)


@lru_cache(maxsize=MAX_TABLES)
def frame_table(dim: int, frames: int, *, scale: float = 1.0, device: torch.device | str) -> Tensor:
    """Positions in time (frames, dim), float32; indices are divided by `scale`."""
    return _code(torch.arange(frames, dtype=torch.float64) / scale, dim).float().to(device)


def token_grid(size: Sequence[int], patch: tuple[int, int, int]) -> tuple[int, int, int]:
    """Tokens along (T, H, W) of latents of this size. Raises ValueError unless they are whole patches."""
    if any(extent % side for extent, side in zip(size, patch, strict=True)):
        sizes, patches = (" x ".join(map(str, numbers)) for numbers in (size, patch))
        raise ValueError(f"latents of {sizes} (frames, height, width) are not whole patches of {patches}")
    frames, rows, columns = (extent // side for extent, side in zip(size, patch, strict=True))
    return frames, rows, columns


def unpatchify(tokens: Tensor, grid: tuple[int, int, int], patch: tuple[int, int, int]) -> Tensor:
    """Patches (B, ..., P * C), all tokens in order, channels fastest -> (B, C, T, H, W) in float32."""
    x = tokens.reshape(len(tokens), *grid, *patch, -1).permute(0, 7, 1, 4, 2, 5, 3, 6)
    return x.flatten(6, 7).flatten(4, 5).flatten(2, 3).float()


class Blocks(nn.ModuleList):
    """The blocks of a network, under the name of the released files; `network.blocks()` lists them."""

    def forward(self) -> list[nn.Module]:
        """The blocks in the order in which they run."""
        return list(self)


def initialize_linear(network: nn.Module) -> None:
    """Xavier weights for linear layers and for the patches, which are one, and no biases."""
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv3d):
            nn.init.xavier_uniform_(module.weight.data.flatten(1))
            assert module.bias is not None
            nn.init.zeros_(module.bias)


def refuse_given_frames(x_mask: Tensor | None) -> None:
    """Raise ValueError for a mask of given frames, which these networks were never shown."""
    if x_mask is not None:
        raise ValueError("this network makes all frames anew; it cannot go on from given ones")
