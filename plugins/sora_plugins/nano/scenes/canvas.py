"""Drawing tools shared by all scenes: noise, random cells, light, camera and blending.

Coordinates are in picture heights: X grows to the right with 0 in the middle, Y grows downwards from 0
(top edge) to 1 (bottom edge) of a still frame; a moving camera shows X and Y beyond that, so every scene is
defined everywhere. Pictures are float32 tensors (3, H, W) in [0, 1]; masks and noises are (H, W).

Painters are made and called under `torch.device(device)` (see `renderer.py`), so `colour` and the like give tensors
there. Constants of modules are therefore plain numbers: a tensor made at import would stay where it was made.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from .catalogue import SceneParams

#: red, green and blue in [0, 1]
Rgb = tuple[float, float, float]

NOISE_SIZE = 512
#: spectrum exponents of the eight noise tiles: low is rough (grain, foam), high is smooth (clouds, hills).
NOISE_EXPONENTS = (1.3, 1.5, 1.6, 1.7, 1.8, 1.9, 2.0, 2.2)


@cache
def noise_tiles(device: str = "cpu") -> Tensor:
    """Eight tileable fractal noises (8, 1, 513, 513), mean 0.5, most values in [0, 1], from a 1/f^b spectrum."""
    with torch.device("cpu"):  # the same noise for every device
        generator = torch.Generator().manual_seed(20240617)
        frequency = torch.fft.fftfreq(NOISE_SIZE)
        radius = (frequency[:, None] ** 2 + frequency[None, :] ** 2).sqrt()
        radius[0, 0] = 1.0
        tiles = []
        for exponent in NOISE_EXPONENTS:
            spectrum = torch.fft.fft2(torch.randn(NOISE_SIZE, NOISE_SIZE, generator=generator)) * radius**-exponent
            spectrum[0, 0] = 0
            tile = torch.fft.ifft2(spectrum).real
            tiles.append((0.5 + 0.2 * tile / tile.std()).clamp(0, 1))
        stacked = torch.stack(tiles)[:, None]
        return F.pad(stacked, (0, 1, 0, 1), mode="circular").to(device)


def noise(index: int, x: Tensor, y: Tensor) -> Tensor:
    """Noise tile `index` (0 rough ... 7 smooth) at x, y (H, W); one unit is one tile, repeating. Returns (H, W)."""
    tile = noise_tiles(str(x.device))[index : index + 1]
    grid = torch.stack([x - x.floor(), y - y.floor()], dim=-1)[None] * 2 - 1
    return F.grid_sample(tile, grid, mode="bilinear", align_corners=True)[0, 0]


@cache
def _cell_table(device: str = "cpu") -> Tensor:
    return torch.rand(4096, generator=torch.Generator().manual_seed(7), device="cpu").to(device)


def cell_random(ix: Tensor, iy: Tensor, salt: int) -> Tensor:
    """A fixed uniform number in [0, 1) for each integer cell (ix, iy) and salt; any shape, broadcast."""
    table = _cell_table(str(ix.device))
    a = table[(ix.long() * 1013 + salt * 389) & 4095]
    b = (a * 4096).long()
    return table[(b + iy.long() * 691 + salt * 97) & 4095]


def smoothstep(low: float, high: float, value: Tensor) -> Tensor:
    """0 below `low`, 1 above `high`, smooth between; low > high gives the falling edge."""
    u = ((value - low) / (high - low)).clamp(0, 1)
    return u * u * (3 - 2 * u)


def colour(red: float, green: float, blue: float) -> Tensor:
    """A colour as a (3, 1, 1) tensor on the current default device."""
    return torch.tensor([red, green, blue], dtype=torch.float32).view(3, 1, 1)


def colours(*values: Rgb) -> tuple[Tensor, ...]:
    """Several colours, each a (3, 1, 1) tensor on the current default device."""
    return tuple(colour(*value) for value in values)


def mix(first: Tensor, second: Tensor, amount: Tensor | float) -> Tensor:
    """first where amount is 0, second where it is 1. amount: number or (H, W)."""
    return first + (second - first) * amount


@dataclass(frozen=True)
class Light:
    """One time of day: sky gradient, the colour every surface is multiplied with, and the haze far away."""

    sky_top: Tensor
    sky_low: Tensor
    surface: Tensor
    haze: Tensor
    sun: Tensor


#: time of day -> the colours of its `Light`, in the order of the fields
LIGHTS: dict[str, tuple[Rgb, Rgb, Rgb, Rgb, Rgb]] = {
    "day": ((0.22, 0.47, 0.86), (0.70, 0.85, 0.97), (1, 1, 1), (0.74, 0.84, 0.93), (1, 0.97, 0.85)),
    "sunset": ((0.30, 0.20, 0.45), (1.0, 0.55, 0.25), (0.95, 0.66, 0.50), (0.95, 0.58, 0.36), (1, 0.80, 0.50)),
    "dawn": ((0.45, 0.50, 0.78), (1.0, 0.78, 0.74), (0.90, 0.80, 0.86), (0.93, 0.78, 0.80), (1, 0.88, 0.75)),
    "overcast": ((0.50, 0.55, 0.61), (0.74, 0.77, 0.80), (0.72, 0.75, 0.79), (0.70, 0.73, 0.77), (0.85, 0.87, 0.9)),
    "night": ((0.015, 0.025, 0.09), (0.07, 0.10, 0.24), (0.22, 0.27, 0.42), (0.07, 0.10, 0.22), (0.8, 0.85, 1.0)),
}


def light_of(time_of_day: str) -> Light:
    """The light of a time of day, on the current default device."""
    return Light(*colours(*LIGHTS[time_of_day]))


def sky(light: Light, y: Tensor, horizon: float) -> Tensor:
    """Sky gradient (3, H, W): `sky_top` a picture height above the horizon, `sky_low` at it."""
    return mix(light.sky_top, light.sky_low, smoothstep(horizon - 0.9, horizon, y))


def camera_view(
    params: SceneParams, seconds: float, height: int, width: int, device: str | torch.device = "cpu"
) -> tuple[Tensor, Tensor]:
    """World coordinates X, Y (H, W) of every pixel at a moment of the clip (unscaled time in seconds).

    "pan right" moves the camera to the right, so the picture's content moves to the left.
    """
    y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / height
    x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5 - width / 2) / height
    travel = params.camera_amplitude * (seconds - 1.0) / 2.0  # centred on the middle of a two-second clip
    zoom, dx, dy = 1.0, 0.0, 0.0
    if params.camera == "pan right":
        dx = travel
    elif params.camera == "pan left":
        dx = -travel
    elif params.camera == "tilt down":
        dy = travel * 0.6
    elif params.camera == "tilt up":
        dy = -travel * 0.6
    elif params.camera in ("zoom in", "zoom out"):
        sign = -1.0 if params.camera == "zoom in" else 1.0
        zoom = float(torch.exp(torch.tensor(sign * travel * 0.9, device="cpu")))
    rows = (y - 0.5) * zoom + 0.5 + dy
    columns = x * zoom + dx
    return columns[None, :].expand(height, width).contiguous(), rows[:, None].expand(height, width).contiguous()
