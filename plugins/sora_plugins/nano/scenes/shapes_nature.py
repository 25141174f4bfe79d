"""Shapes shared by the nature scenes: skylines, discs, pines, stars, and tiles of soft particles.

The camera never rolls, so all pixels of a column share X and all pixels of a row share Y. What depends on X
alone is therefore computed on one row (1, W), what depends on Y alone on one column (H, 1).
"""

from __future__ import annotations

import math
import random
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from .canvas import Light, colour, noise_tiles, smoothstep

TILE = 512


def across(x: Tensor) -> Tensor:
    """The X of each column, as a row (1, W)."""
    return x[:1]


def down(y: Tensor) -> Tensor:
    """The Y of each row, as a column (H, 1)."""
    return y[:, :1]


def lit(light: Light, red: float, green: float, blue: float) -> Tensor:
    """A surface colour under a light, (3, 1, 1)."""
    return colour(red, green, blue) * light.surface


def skyline(rng: random.Random, x: Tensor, scale: float, rough: float = 0.5) -> Tensor:
    """A hill line as a function of x, within about [-1, 1]: four sines, each `rough` times the one before."""
    height = torch.zeros_like(x)
    for octave in range(4):
        frequency = scale * 2.1**octave * rng.uniform(0.85, 1.15)
        height = height + rough**octave * torch.sin(frequency * x + rng.uniform(0, 2 * math.pi))
    return height * (1 - rough)


def disc(x: Tensor, y: Tensor, centre: tuple[float, float], radius: float) -> tuple[Tensor, Tensor]:
    """A sun or moon: the mask of its disc and the glow around it, each (H, W)."""
    distance = ((x - centre[0]) ** 2 + (y - centre[1]) ** 2).sqrt()
    glow = torch.exp(distance * (-0.35 / radius))
    return smoothstep(radius * 1.08, radius * 0.92, distance), glow


def _dots(points: list[tuple[float, float, float, float]], width: float, height: float) -> Tensor:
    """A tile (1, 1, 513, 513) with a soft dot at each point (x, y, size, brightness), wrapping at its edges."""
    axis = (torch.arange(TILE, device="cpu") + 0.5) / TILE
    tile = torch.zeros(TILE, TILE, device="cpu")
    for px, py, size, bright in points:
        dx = ((axis - px + 0.5) % 1 - 0.5) / (width * size)
        dy = ((axis - py + 0.5) % 1 - 0.5) / (height * size)
        tile = torch.maximum(
            tile, bright * torch.exp(-((dy[:, None].square()) ** 1.5)) * torch.exp(-dx.square())[None, :]
        )
    return F.pad(tile[None, None], (0, 1, 0, 1), mode="circular")


@cache
def particle_tile(kind: str, device: str = "cpu") -> Tensor:
    """A tile of particles: "snow" and "stars" are round, "rain" is streaks. Size: one tile is one unit of `sample`."""
    columns, rows, width, height = {
        "snow": (6, 6, 0.022, 0.022),
        "stars": (7, 7, 0.011, 0.011),
        "rain": (9, 3, 0.008, 0.085),
    }[kind]
    rng = random.Random(kind)
    points = []
    for index in range(columns * rows):  # one jittered dot per cell keeps them evenly spread
        column, row = index % columns, index // columns
        place = ((column + rng.random()) / columns, (row + rng.random()) / rows)
        points.append((*place, rng.uniform(0.6, 1.15), rng.uniform(0.5, 1)))
    return _dots(points, width, height).to(device)


@cache
def band_tile(kind: str, device: str = "cpu") -> Tensor:
    """Upright "streaks" or round "heaps" of one size only, so that any piece of the tile looks alike. Mean 0.5."""
    frequency = torch.fft.fftfreq(TILE, device="cpu") * TILE
    if kind == "streaks":
        across_band = torch.exp(-((frequency.abs().clamp(min=0.1) / 11).log() ** 2) / 0.25)
        band = torch.exp(-((frequency / 3.0) ** 2))[:, None] * across_band[None, :]
    else:
        radius = (frequency[:, None] ** 2 + frequency[None, :] ** 2).sqrt().clamp(min=0.1)
        band = torch.exp(-((radius / 3.2).log() ** 2) / 0.12) / radius
    white = torch.randn(TILE, TILE, generator=torch.Generator().manual_seed(3), device="cpu")
    tile = torch.fft.ifft2(torch.fft.fft2(white) * band).real
    return F.pad((0.5 + 0.25 * tile / tile.std()).clamp(0, 1)[None, None], (0, 1, 0, 1), mode="circular").to(device)


def sample(tile: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """A tile at x, y (H, W); one unit is one tile, repeating. Returns (H, W)."""
    grid = torch.stack(torch.broadcast_tensors(x - x.floor(), y - y.floor()), dim=-1)[None] * 2 - 1
    return F.grid_sample(tile, grid, mode="bilinear", align_corners=True)[0, 0]


def texture(index: int, x: Tensor, y: Tensor) -> Tensor:
    """Noise tile `index` like `canvas.noise`, but x and y may be rows and columns that broadcast to (H, W)."""
    return sample(noise_tiles(str(x.device))[index : index + 1], x, y)


def stars(x: Tensor, y: Tensor, t: float, seed: int) -> Tensor:
    """Brightness (H, W) of few fat stars that twinkle slowly."""
    tile = particle_tile("stars", str(x.device))
    shift = (seed % 97) / 97
    twinkle = 0.75 + 0.25 * torch.sin(x * 41 + y * 57 + 2.5 * t)
    return (sample(tile, x * 0.9 + shift, y * 0.9 + 0.3) * twinkle).clamp(0, 1)


def pine(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """A pine: u is sideways from its trunk and v is down from its tip, both in tree heights. Mask and snow on it."""
    tier = v * 4.0
    part = tier - tier.floor()
    half = 0.34 * v * (0.62 + 0.38 * part) + 0.02
    inside = smoothstep(0.02, -0.02, u.abs() - half) * (v > 0) * (v < 0.93)
    trunk = (u.abs() < 0.035) * (v > 0.5) * (v < 1.05)
    snow = inside * smoothstep(0.75, 0.35, part + u.abs() * 0.6)  # on the upper side of every tier
    return torch.maximum(inside, trunk.float()), snow
