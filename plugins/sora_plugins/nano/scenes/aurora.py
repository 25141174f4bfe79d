"""The night sky: stars over dark mountains and a lake, usually with curtains of northern lights."""

from __future__ import annotations

import math
import random

import torch
from torch import Tensor

from .canvas import colour, light_of, mix, sky, smoothstep
from .catalogue import SceneParams
from .renderer import Painter
from .shapes_nature import across, band_tile, down, sample, skyline, stars, texture

#: colour near the lower edge of a curtain and colour of its upper rays.
CURTAINS = {
    "green": ((0.15, 1.0, 0.40), (0.05, 0.55, 0.45)),
    "purple": ((0.62, 0.20, 1.0), (0.35, 0.10, 0.75)),
    "teal": ((0.10, 0.90, 0.95), (0.05, 0.35, 0.80)),
    "pink": ((1.0, 0.30, 0.62), (0.75, 0.15, 0.55)),
}


class Aurora:
    """Layout and colours of one clip; called, it paints a frame."""

    def __init__(self, params: SceneParams) -> None:
        rng = random.Random(params.seed)
        self.seed, self.light = params.seed, light_of("night")
        self.shore = rng.uniform(0.78, 0.83)
        self.curtains = CURTAINS.get(params.attributes["colour"])
        self.low, self.high = (colour(*c) for c in self.curtains or ((0, 0, 0), (0, 0, 0)))
        self.base = rng.uniform(0.56, 0.62)
        self.phases = [rng.uniform(0, 2 * math.pi) for _ in range(6)]
        self.drift = rng.choice((-1, 1)) * rng.uniform(0.8, 1.2)
        self.tilt = rng.choice((-1, 1)) * rng.uniform(0.5, 0.8)

    def __call__(self, x: Tensor, y: Tensor, t: float) -> Tensor:
        """The picture (3, H, W) at X, Y and scene time t."""
        # The lake mirrors what is above the shore: rows below it look back up, a little shaken by the waves.
        row = down(y) - self.shore
        wave = 0.010 * torch.sin(70 * row.clamp(min=0.0).sqrt() - 3.0 * t) * smoothstep(0.0, 0.1, row)
        mirrored = torch.where(row > 0, self.shore - 2.4 * row + wave, down(y)).expand_as(y)
        picture = self._sky(x, mirrored, t)
        ridge = self.shore - 0.115 - 0.10 * skyline(random.Random(self.seed), across(x), 3.2, 0.55)
        ridge = torch.minimum(ridge, torch.full_like(ridge, self.shore - 0.012))
        rock = mix(
            colour(0.01, 0.015, 0.03),
            self.low * 0.10 + colour(0.02, 0.03, 0.07),
            smoothstep(0.14, 0.0, mirrored - ridge),
        )
        picture = mix(picture, rock, smoothstep(-0.005, 0.005, mirrored - ridge))
        return mix(picture, picture * 0.62 + colour(0.005, 0.015, 0.035), smoothstep(-0.004, 0.004, row))

    def _sky(self, x: Tensor, y: Tensor, t: float) -> Tensor:
        picture = sky(self.light, y, self.shore)
        if self.curtains is None:
            picture = self._milky_way(picture, x, y)
        light = self.low * 0.16 * smoothstep(0.25, self.shore, y)
        if self.curtains is not None:
            for index in range(2):
                light = light + self._curtain(x, y, t, index)
        dots = stars(x, y, t, self.seed) * (0.75 if self.curtains else 1.0)
        return mix(picture, colour(1, 1, 1), dots) + light * (1 - 0.5 * picture)

    def _curtain(self, x: Tensor, y: Tensor, t: float, index: int) -> Tensor:
        """One curtain: a swaying lower edge, bright rays that drift along it and fade upwards."""
        columns = across(x)
        a, b, c = self.phases[3 * index : 3 * index + 3]
        s = self.drift * (1 - 0.3 * index)
        edge = self.base - 0.17 * index + 0.10 * torch.sin(2.6 * columns + a + 0.9 * s * t)
        edge = edge + 0.045 * torch.sin(6.1 * columns + b - 1.5 * s * t)
        bend = columns + 0.10 * torch.sin(3.7 * columns + c + 0.8 * t)
        rays = sample(
            band_tile("streaks", str(x.device)),
            bend * 0.55 + 0.16 * s * t + 0.4 * index,
            columns * 0 + 0.25 * t + 0.3 * index,
        )
        glow = 0.55 + 0.45 * torch.sin(1.9 * columns + c - 1.1 * s * t)
        above = edge - y
        length = 0.10 + 0.30 * rays * (0.5 + glow)
        body = torch.exp(-above.clamp(min=0.0) / length) * smoothstep(-0.05, 0.015, above)
        strength = body * ((0.25 + 1.2 * rays) * (0.35 + 0.75 * glow) * (1 - 0.25 * index))
        return mix(self.low, self.high, smoothstep(0.0, 0.38, above)) * strength

    def _milky_way(self, picture: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """A pale slanting band of star dust."""
        across_band = (y - 0.32) + self.tilt * x
        dust = texture(5, x * 0.5, y * 0.5)
        band = torch.exp(-((across_band / 0.20) ** 2)) * (0.15 + 0.9 * dust)
        return mix(picture, colour(0.55, 0.55, 0.78), band * 0.75)


def make_painter(params: SceneParams) -> Painter:
    """The painter of one night-sky clip."""
    return Aurora(params)
