"""The fake components. Everything is a pure function of its inputs, per sample, so batches do not change results."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sora_cli import CheckResult
from sora_cli.plugin.protocols import DiffusionModel, SampleRequest, TextEmbedding


class FakeModel(nn.Module):
    """Pulls latents towards a colour made from the text."""

    def __init__(self, width: int, brightness: float = 0.0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.empty(1))
        self.null = nn.Parameter(torch.empty(width))
        self.brightness = brightness

    def forward(self, x: Tensor, timestep: Tensor, y: Tensor, **conditioning: Any) -> Tensor:
        """x (B, 3, T, H, W); y (b, 1, L, 4), b divides B."""
        colour = y.mean(dim=(1, 2))[:, :3].repeat(len(x) // len(y), 1)
        return colour[:, :, None, None, None] - self.gain * x.float() + self.brightness

    def null_text(self, num_prompts: int, length: int) -> Tensor:
        return self.null.expand(num_prompts, 1, length, -1)


def build(config: Mapping[str, Any], options: Any) -> FakeModel:
    return FakeModel(config["width"], options.brightness if options is not None else 0.0)


class FakeVAE:
    def encode(self, pixels: Tensor) -> Tensor:
        return nn.functional.avg_pool3d(pixels, (1, 8, 8))

    def decode(self, latents: Tensor, num_frames: int, *, frames_at_once: int | None = None) -> Iterator[Tensor]:
        """Two frames at a time."""
        pixels = latents.tanh().repeat_interleave(8, dim=3).repeat_interleave(8, dim=4)
        yield from pixels[:, :, :num_frames].split(2, dim=2)


def load_vae(weights: Any, device: Any, dtype: Any) -> FakeVAE:
    return FakeVAE()


class FakeTextEncoder:
    def encode(self, prompts: Sequence[str]) -> TextEmbedding:
        embeddings = torch.zeros(len(prompts), 1, 8, 4)
        mask = torch.zeros(len(prompts), 8, dtype=torch.int64)
        for row, prompt in enumerate(prompts):
            letters = torch.tensor([ord(letter) % 17 for letter in prompt[:8]] or [0], dtype=torch.float32)
            embeddings[row, 0, : len(letters)] = (letters[:, None] / 8 - 1) * torch.tensor([1.0, -1.0, 0.5, 0.0])
            mask[row, : len(letters)] = 1
        return TextEmbedding(embeddings, mask)


def load_text_encoder(weights: Any, device: Any, dtype: Any) -> FakeTextEncoder:
    return FakeTextEncoder()


class EqualSteps:
    """Euler steps of equal length, without guidance. FAKE_STEP_SECONDS in the environment slows them down."""

    def __init__(self, options: Any = None) -> None:
        self.options = options

    def schedule(self, steps: int, *, height: int, width: int, num_frames: int, latent_frames: int) -> Tensor:
        return 1000 * (1 - torch.arange(steps, dtype=torch.float32) / steps)

    def sample(
        self,
        model: DiffusionModel,
        request: SampleRequest,
        *,
        steps: int,
        guidance: float,
        start_step: int = 0,
        on_step: Callable[[int, Tensor], None] | None = None,
    ) -> Tensor:
        latents = request.noise
        times = 1000 * (1 - torch.arange(steps, dtype=torch.float32) / steps)
        for step in range(start_step, steps):
            time.sleep(float(os.environ.get("FAKE_STEP_SECONDS", "0")))
            velocity = model(latents, times[step].expand(len(latents)), request.text.embeddings, mask=request.text.mask)
            latents = latents + velocity / steps
            if on_step is not None:
                on_step(step + 1, latents)
        return latents


def parallelize(model: nn.Module, mesh: Any, shard: Any) -> nn.Module:
    return model


def check() -> CheckResult:
    return CheckResult("ok", "the fake plugin was asked")
