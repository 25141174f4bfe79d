"""The implementations behind the specs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sora_cli.plugin.protocols import TextEmbedding


class TinyModel(nn.Module):
    """A convolution over the latents, shifted by the text and the time."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Conv3d(channels, channels, 3, padding=1)
        self.text = nn.Linear(8, channels)
        self.register_buffer("null", torch.zeros(32, 8))

    def null_text(self, num_prompts: int, length: int) -> Tensor:
        return self.null[None, None, :length].expand(num_prompts, -1, -1, -1)

    def forward(self, x: Tensor, timestep: Tensor, y: Tensor, mask: Tensor, **conditioning: Any) -> Tensor:
        time.sleep(float(os.environ.get("TINY_STEP_SECONDS", "0")))
        if "TINY_FAIL" in os.environ:
            raise ValueError(os.environ["TINY_FAIL"])
        if len(x) > int(os.environ.get("TINY_ROWS", "8")):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        dtype = self.mix.weight.dtype
        rows = mask.repeat(len(y) // len(mask), 1)[:, None, :, None].to(y.dtype)
        words = (y * rows).sum(dim=(1, 2)) / rows.sum(dim=(1, 2))
        shift = self.text(words.to(dtype)) + (timestep[:, None] / 1000).to(dtype)
        return (self.mix(x.to(dtype)) + shift[:, :, None, None, None]).float()


def build(config: Mapping[str, Any], options: None) -> TinyModel:
    return TinyModel(**config)


def share(model: TinyModel, group: Any) -> None:
    """Every process of the group does the same."""


class TinyAutoencoder:
    """Latents become blocks of 4 frames x 8 x 8 pixels."""

    def decode(self, latents: Tensor, num_frames: int, *, frames_at_once: int | None = None) -> Iterator[Tensor]:
        for start in range(0, num_frames, 4):
            time.sleep(float(os.environ.get("TINY_DECODE_SECONDS", "0")))
            piece = latents[:, :3, start // 4 : start // 4 + 1].tanh()
            frames = min(4, num_frames - start)
            yield F.interpolate(piece, scale_factor=(frames, 8, 8), mode="nearest")


def load_vae(weights: Any, device: torch.device, dtype: torch.dtype) -> TinyAutoencoder:
    return TinyAutoencoder()


class TinyTextEncoder:
    """One random but fixed vector per letter."""

    def __init__(self) -> None:
        self.table = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))

    def tokens_cut(self, prompt: str) -> int:
        return max(0, len(prompt.encode()) - 31)

    def encode(self, prompts: Sequence[str]) -> TextEmbedding:
        ids = torch.zeros(len(prompts), 32, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            letters = list(prompt.encode())[:31]
            ids[row, : len(letters)] = torch.tensor(letters, dtype=torch.int64)
            mask[row, : len(letters) + 1] = 1
        return TextEmbedding(self.table[ids][:, None], mask)


def load_text(weights: Any, device: torch.device, dtype: torch.dtype) -> TinyTextEncoder:
    return TinyTextEncoder()
