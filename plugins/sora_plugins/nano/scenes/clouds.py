"""Clouds drifting and billowing across the sky, above green hills or with nothing but sky."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from .canvas import colour, light_of, mix, sky, smoothstep
from .catalogue import SceneParams
from .renderer import Painter
from .shapes_nature import across, band_tile, disc, down, lit, sample, skyline, texture

#: lit side and shaded side of a cloud
CLOUDS = {
    "day": ((1.0, 1.0, 1.0), (0.62, 0.70, 0.82)),
    "sunset": ((1.0, 0.72, 0.45), (0.55, 0.28, 0.42)),
    "dawn": ((1.0, 0.88, 0.84), (0.66, 0.58, 0.76)),
    "overcast": ((0.86, 0.88, 0.90), (0.42, 0.46, 0.52)),
}


class Clouds:
    """Layout and colours of one clip; called, it paints a frame."""

    def __init__(self, params: SceneParams) -> None:
        rng = random.Random(params.seed)
        self.seed, self.light = params.seed, light_of(params.time_of_day)
        self.ground = params.attributes["ground"] == "hills"
        self.thick = params.attributes["cover"] == "thick"
        self.bright, self.dark = (colour(*c) for c in CLOUDS[params.time_of_day])
        self.horizon = rng.uniform(0.76, 0.82) if self.ground else 1.15
        self.speed = rng.choice((-1, 1)) * rng.uniform(0.09, 0.13)
        self.offset = (rng.random(), rng.random())
        low = params.time_of_day in ("sunset", "dawn")
        self.sun = (rng.uniform(-0.6, 0.6), self.horizon - (0.13 if low else 0.66))
        self.sun_strength = 0.0 if params.time_of_day == "overcast" else 1.0
        self.grass = [
            mix(lit(self.light, *c), self.light.haze, h)
            for c, h in (((0.30, 0.52, 0.30), 0.45), ((0.30, 0.60, 0.18), 0.05))
        ]

    def __call__(self, x: Tensor, y: Tensor, t: float) -> Tensor:
        """The picture (3, H, W) at X, Y and scene time t."""
        picture = sky(self.light, y, self.horizon - 0.05)
        mask, glow = disc(x, y, self.sun, 0.075)
        picture = mix(picture, self.light.sun, torch.maximum(mask, glow * 0.6) * self.sun_strength)
        picture = self._clouds(picture, x, y, t)
        return self._hills(picture, x, y) if self.ground else picture

    def _density(self, u: Tensor, v: Tensor, t: float) -> Tensor:
        """Cloud density at sky coordinates: big heaps with billows that move through them."""
        heaps = sample(band_tile("heaps", str(u.device)), u + self.offset[0], v + self.offset[1])
        billows = texture(5, u * 2.0 + self.offset[1] + 0.012 * t, v * 1.6 + self.offset[0] + 0.02 * t)
        return 0.5 + 0.8 * (heaps - 0.5) + 0.85 * (billows - 0.5)

    def _clouds(self, picture: Tensor, x: Tensor, y: Tensor, t: float) -> Tensor:
        """Clouds are larger overhead than at the horizon; light comes from above."""
        height = (self.horizon - down(y)).clamp(min=-0.3)
        size = 1 / (0.62 + 0.55 * height)
        u, v = (across(x) - self.speed * t) * size * 0.40, -(0.62 + 0.55 * height).log() * 1.25
        density = self._density(u, v, t)
        above = self._density(u - 0.012, v - 0.045, t)
        level = 0.33 if self.thick else 0.58
        cover = smoothstep(level, level + 0.13, density)
        shade = (0.66 + 2.6 * (density - above) - (0.55 if self.thick else 0.7) * (density - level)).clamp(0, 1)
        cloud = mix(self.dark, self.bright, smoothstep(0.05, 0.75, shade))
        far = smoothstep(0.25, 0.0, height) * 0.5 if self.ground else 0.0
        return mix(picture, mix(cloud, self.light.haze, far), cover)

    def _hills(self, picture: Tensor, x: Tensor, y: Tensor) -> Tensor:
        columns, rows = across(x), down(y)
        for index, grass in enumerate(self.grass):
            line = self.horizon - 0.02 + 0.10 * index + 0.045 * skyline(random.Random(self.seed + index), columns, 2.4)
            below = rows - line
            body = grass * (1.08 - 0.9 * below.clamp(0, 0.45))
            picture = mix(picture, body, smoothstep(-0.005, 0.005, below))
        return picture


def make_painter(params: SceneParams) -> Painter:
    """The painter of one clip of clouds."""
    return Clouds(params)
