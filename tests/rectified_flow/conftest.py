"""Stand-in networks and requests for the rectified-flow tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from sora_cli.plugin.protocols import SampleRequest, TextEmbedding


class RecordingModel:
    """A smooth, cheap network that mixes frames and depends on text, time and frame mask; keeps what it was given."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def __call__(self, x: Tensor, timestep: Tensor, y: Tensor, **conditioning: Any) -> Tensor:
        self.calls.append({"x": x.clone(), "timestep": timestep.clone(), "y": y.clone(), **conditioning})
        x_mask = conditioning.get("x_mask")
        noise_level = (timestep / 1000)[:, None].expand(-1, x.shape[2])
        if x_mask is not None:
            noise_level = torch.where(x_mask, noise_level, torch.zeros_like(noise_level))
        noise_level = noise_level[:, None, :, None, None]
        text = y.flatten(1).mean(dim=1).view(-1, 1, 1, 1, 1)
        velocity = torch.tanh(x + text) * (0.3 + noise_level) - 0.2 * x.mean(dim=2, keepdim=True)
        return torch.cat([velocity, torch.full_like(x, 9.0)], dim=1)


def make_request(frame_mask: Tensor | None = None, *, num_frames: int = 51, **changes: Any) -> SampleRequest:
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(2, 4, 5, 3, 3, generator=generator)
    text = TextEmbedding(torch.randn(2, 1, 6, 8, generator=generator), torch.ones(2, 6, dtype=torch.long))
    null = torch.randn(2, 1, 6, 8, generator=generator)

    def draw_noise(step: int) -> Tensor:
        return torch.randn(noise.shape, generator=torch.Generator().manual_seed(100 + step))

    request = SampleRequest(noise, text, null, 240, 426, num_frames, 5, 24.0, frame_mask, draw_noise)
    return request._replace(**changes)


@pytest.fixture
def recorder() -> RecordingModel:
    return RecordingModel()


@pytest.fixture
def request_for() -> Callable[..., SampleRequest]:
    """Makes a request of 2 samples with 5 latent frames; keywords replace its fields."""
    return make_request
