"""Clips from parameters: picks the scene's painter, moves the camera, and paints frame after frame."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from importlib import import_module

import torch
from torch import Tensor

from .canvas import camera_view
from .catalogue import SCENES, SceneParams

#: A painter is made once per clip and paints the picture (3, H, W) seen at world coordinates X, Y at scene time t.
#: It is made and called under the device of X and Y as torch's default device.
Painter = Callable[[Tensor, Tensor, float], Tensor]


def make_painter(params: SceneParams) -> Painter:
    """The painter of a scene: module `<scene>` of this package holds `make_painter(params)`."""
    if params.scene not in SCENES:
        raise ValueError(f"unknown scene {params.scene!r}; known: {', '.join(SCENES)}")
    return import_module(f"{__package__}.{params.scene}").make_painter(params)


def _default_device(device: str | torch.device) -> contextlib.AbstractContextManager[object]:
    """Make `device` torch's default; nothing when it is already, because the context slows every call by a fifth."""
    wanted = torch.device(device)
    return contextlib.nullcontext() if wanted == torch.get_default_device() else wanted


def frames(
    params: SceneParams,
    num_frames: int,
    height: int,
    width: int,
    *,
    fps: float = 24.0,
    first: int = 0,
    device: str | torch.device = "cpu",
) -> Iterator[Tensor]:
    """Paint the clip frame by frame, from frame `first` on. Yields uint8 (H, W, 3) tensors on `device`; deterministic
    in `params`."""
    with _default_device(device):
        paint = make_painter(params)
    for index in range(first, first + num_frames):
        seconds = index / fps
        with _default_device(device):  # for one frame at a time: the reader of this generator keeps its own default
            x, y = camera_view(params, seconds, height, width, device)
            picture = paint(x, y, seconds * params.speed)
        yield (picture.clamp(0, 1) * 255 + 0.5).to(torch.uint8).permute(1, 2, 0).contiguous()


def render(
    params: SceneParams,
    num_frames: int,
    height: int,
    width: int,
    *,
    fps: float = 24.0,
    first: int = 0,
    device: str | torch.device = "cpu",
) -> Tensor:
    """Frames of the clip from frame `first` on, uint8 (T, H, W, 3), on `device`."""
    return torch.stack(list(frames(params, num_frames, height, width, fps=fps, first=first, device=device)))
