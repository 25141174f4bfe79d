"""The sea: rows of waves roll from the horizon towards the viewer, onto open water or a sandy beach."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from .canvas import colour, light_of, mix, sky, smoothstep
from .catalogue import SceneParams
from .renderer import Painter
from .shapes_nature import across, disc, down, lit, stars, texture

#: height of the sun (the moon at night) above the horizon
SUN_LIFT = {"day": 0.30, "sunset": 0.10, "dawn": 0.13, "overcast": 0.30, "night": 0.26}


class Ocean:
    """Layout and colours of one clip; called, it paints a frame."""

    def __init__(self, params: SceneParams) -> None:
        rng = random.Random(params.seed)
        light = light_of(params.time_of_day)
        self.seed, self.light, self.time = params.seed, light, params.time_of_day
        self.rough = params.attributes["waves"] == "rough"
        self.beach = params.attributes["shore"] == "beach"
        self.horizon = rng.uniform(0.38, 0.45)
        self.sun = (rng.uniform(-0.4, 0.4), self.horizon - SUN_LIFT[self.time])
        self.offset, self.sweep = rng.random(), rng.uniform(0, 6.28)
        self.drift = rng.choice((-1, 1)) * 0.02
        deep = (0.03, 0.20, 0.28) if self.rough else (0.02, 0.26, 0.48)
        bright = (0.22, 0.46, 0.50) if self.rough else (0.10, 0.56, 0.72)
        self.deep = mix(lit(light, *deep), light.sky_top, 0.12 if self.time == "day" else 0.35)
        self.bright = mix(lit(light, *bright), light.sky_low, 0.30)
        self.foam = mix(light.surface, colour(1, 1, 1), 0.35) * 0.97
        self.sand = lit(light, 0.90, 0.77, 0.53)
        self.cloud = mix(light.sky_low, colour(1, 1, 1), 0.6 if self.time == "day" else 0.12)

    def __call__(self, x: Tensor, y: Tensor, t: float) -> Tensor:
        """The picture (3, H, W) at X, Y and scene time t."""
        picture = self._sky(x, y, t)
        row = down(y) - self.horizon
        water = self._water(x, row, t)
        picture = mix(picture, water, smoothstep(-0.004, 0.004, row))
        return self._beach(picture, x, y, t) if self.beach else picture

    def _sky(self, x: Tensor, y: Tensor, t: float) -> Tensor:
        picture = sky(self.light, y, self.horizon)
        clouds = texture(6, x * 0.25 + self.offset + self.drift * t, y * 0.9 + self.offset)
        if self.time == "night":
            picture = mix(picture, colour(1, 1, 1), stars(x, y, t, self.seed))
        picture = mix(picture, self.cloud, smoothstep(0.52, 0.75, clouds) * (0.25 if self.time == "night" else 0.75))
        mask, glow = disc(x, y, self.sun, 0.085)
        strength = 0.0 if self.time == "overcast" else 1.0
        return mix(mix(picture, self.light.sun, glow * 0.6 * strength), self.light.sun, mask * strength)

    def _water(self, x: Tensor, row: Tensor, t: float) -> Tensor:
        """Waves: a phase that grows with the logarithm of the depth makes them larger the nearer they come."""
        depth = row.clamp(min=0.0) + 0.09
        path = 3.1 * depth.log()
        rate = 0.85 if self.rough else 0.6
        wide = across(x) * (0.16 / depth.sqrt())  # crests grow less in width than in height: longer looks calmer
        bend = texture(7, wide + self.offset, path * 0.12 - rate * 0.12 * t + self.offset)
        phase = path - rate * t + (2.6 if self.rough else 1.8) * bend
        wave = phase - phase.floor()
        # From the crest (0) down its dark face (0.3), through the trough, up the bright back of the next (1).
        back = smoothstep(0.15, 0.95, wave) + smoothstep(0.14, 0.0, wave)
        grain = texture(3, wide * 2.2 + 0.05 * t, path * 0.35 - rate * 0.3 * t)
        near = smoothstep(0.0, 0.16, row)
        shade = 0.45 + (back - 0.45) * (0.35 + 0.65 * near) + 0.5 * (grain - 0.5)
        water = mix(self.deep, self.bright, shade.clamp(0, 1))
        water = mix(water, mix(self.deep, self.light.sky_low, 0.5), smoothstep(0.12, 0.0, row) * 0.7)
        crest = torch.minimum(wave, 1 - wave) - 0.5 * smoothstep(0.08, 0.0, row)
        if self.rough:
            thick = 0.06 + 0.30 * (texture(4, wide * 1.1, (phase + 0.5).floor() * 0.37 + self.offset) - 0.42)
            white = smoothstep(0.05, -0.06, crest - thick + 0.35 * (grain - 0.5))
        else:
            white = smoothstep(0.05, 0.0, crest + 0.12 * (0.55 - grain)) * 0.55
        water = mix(water, self.foam, white * (0.25 + 0.75 * near))
        return self._glitter(water, x, row, shade)

    def _glitter(self, water: Tensor, x: Tensor, row: Tensor, shade: Tensor) -> Tensor:
        """The path of light under a low sun or the moon."""
        if self.time == "overcast":
            return water
        path = torch.exp(-(((across(x) - self.sun[0]) / (0.07 + 0.35 * row.clamp(min=0.0))) ** 2))
        strength = 0.45 if self.time == "day" else 0.9
        return mix(water, self.light.sun, path * smoothstep(0.35, 0.85, shade) * strength)

    def _beach(self, picture: Tensor, x: Tensor, y: Tensor, t: float) -> Tensor:
        """Sand in front; the last wave washes up and slides back, leaving it wet and dark."""
        columns, rows = across(x), down(y)
        coast = 0.76 + 0.025 * torch.sin(2.3 * columns + self.sweep) + 0.012 * torch.sin(7 * columns + 2 * self.sweep)
        wash = 0.055 * torch.sin(torch.tensor(1.7 * t + self.sweep)) + 0.012 * torch.sin(5 * columns + 0.8 * t)
        lace = 0.05 * (texture(4, x * 0.7, y * 1.1 - 0.1 * t) - 0.5)
        edge = rows - coast - wash + lace
        dune = 0.86 + 0.28 * texture(6, x * 0.3 + self.offset, y * 0.9)
        sand = self.sand * mix(dune * 0.66, dune, smoothstep(0.05, 0.10, rows - coast + lace))
        picture = mix(picture, mix(self.bright, self.foam, 0.25), smoothstep(-0.10, 0.0, edge) * 0.75)
        picture = mix(picture, sand, smoothstep(-0.006, 0.006, edge))
        foam = smoothstep(-0.055, -0.02, edge) * smoothstep(0.018, 0.004, edge)
        return mix(picture, self.foam, foam)


def make_painter(params: SceneParams) -> Painter:
    """The painter of one sea clip."""
    return Ocean(params)
