"""Calling a network for the text and for "no text" at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sora_cli.plugin.protocols import DiffusionModel, SampleRequest


def guided_call(
    model: DiffusionModel, request: SampleRequest, guidance: float
) -> tuple[Callable[[Tensor, Tensor, Tensor | None], Tensor], bool]:
    """A function (x, t, x_mask) -> the network's output, and whether its rows are those of two halves.

    Both halves run as one batch, the text first. With guidance 1, or no null embeddings, only the text runs. x: (n, C,
    T, H, W); t: one time; x_mask: (n, T) bool, False for frames that are given.
    """
    count = len(request.noise)
    device = request.noise.device
    is_guided = guidance != 1 and request.null_embeddings is not None
    y: Any = request.text.embeddings  # or what the model makes of it, below
    mask: Any = request.text.mask
    if is_guided:
        assert request.null_embeddings is not None
        y = torch.cat([y, request.null_embeddings.to(y)])
        if request.null_mask is not None:
            mask = torch.cat([mask, request.null_mask])
    if hasattr(model, "encode_text"):  # projected now, once, instead of at each step
        y, mask = model.encode_text(y, mask), None
    info = {
        name: torch.full((count,), float(value), device=device)
        for name, value in (
            ("height", request.height),
            ("width", request.width),
            ("num_frames", request.num_frames),
            ("fps", request.fps),
            ("ar", request.height / request.width),
        )
    }
    copies = 2 if is_guided else 1

    def call(x: Tensor, t: Tensor, active: Tensor | None) -> Tensor:
        x_mask = None if active is None else active.repeat(copies, 1)
        return model(torch.cat([x] * copies), t.expand(count * copies), y, mask=mask, x_mask=x_mask, **info)

    return call, is_guided
