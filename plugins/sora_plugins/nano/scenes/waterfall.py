"""A waterfall: white water falls between dark cliffs into a pool with foam, boulders and mist."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from .canvas import colour, light_of, mix, sky, smoothstep
from .catalogue import SceneParams
from .renderer import Painter
from .shapes_nature import across, band_tile, disc, down, lit, sample, skyline, stars, texture

ROCKS = {"grey": (0.42, 0.44, 0.48), "mossy": (0.34, 0.36, 0.30), "red": (0.68, 0.31, 0.18)}


class Waterfall:
    """Layout and colours of one clip; called, it paints a frame."""

    def __init__(self, params: SceneParams) -> None:
        rng = random.Random(params.seed)
        light = light_of(params.time_of_day)
        self.seed, self.light = params.seed, light
        self.night = params.time_of_day == "night"
        self.mossy = params.attributes["rock"] == "mossy"
        self.centre = rng.uniform(-0.2, 0.2)
        self.half = rng.uniform(0.10, 0.125) if params.attributes["width"] == "narrow" else rng.uniform(0.29, 0.36)
        self.lip, self.pool = rng.uniform(0.21, 0.26), rng.uniform(0.71, 0.77)
        self.offset = (rng.random(), rng.random())
        self.sun = (self.centre + rng.choice((-1, 1)) * rng.uniform(0.5, 0.65), 0.06)
        self.rock = lit(light, *ROCKS[params.attributes["rock"]])
        self.moss = lit(light, 0.30, 0.58, 0.12)
        water = mix(light.surface, colour(0.85, 0.95, 1.25) if self.night else colour(1, 1, 1), 0.5)
        self.white = mix(water, light.sky_low, 0.1) * colour(0.98, 1.0, 1.0)
        self.blue = colour(0.30, 0.56, 0.74) * water
        self.deep = mix(colour(0.05, 0.33, 0.42) * light.surface, light.sky_low, 0.1)
        self.boulders = [
            (
                side * (self.half + rng.uniform(0.10, 0.16) + step * 0.22),
                self.pool + 0.02 + step * rng.uniform(0.06, 0.10),
                rng.uniform(0.10, 0.14) + step * 0.03,
                rng.uniform(0.075, 0.10) + step * 0.03,
            )
            for side in (-1, 1)
            for step in range(3)
        ]

    def __call__(self, x: Tensor, y: Tensor, t: float) -> Tensor:
        """The picture (3, H, W) at X, Y and scene time t."""
        picture = self._sky(x, y, t)
        stone, shade = self._stone(x, y)
        side = smoothstep(self.half, self.half + 0.22, (across(x) - self.centre).abs())
        ridge = self.lip - side * (0.11 + 0.05 * skyline(random.Random(self.seed), across(x), 3.0))
        picture = mix(picture, stone, smoothstep(-0.008, 0.008, y - ridge))
        picture = self._water(picture, x, y, t)
        picture = self._pool(picture, x, y, t)
        picture = self._boulders(picture, x, y, stone, shade)
        return self._mist(picture, x, y, t)

    def _sky(self, x: Tensor, y: Tensor, t: float) -> Tensor:
        picture = sky(self.light, y, 0.45)
        mask, glow = disc(x, y, self.sun, 0.05)
        picture = mix(picture, self.light.sun, glow * 0.6)
        if self.night:
            picture = mix(picture, colour(1, 1, 1), torch.maximum(mask, stars(x, y, t, self.seed)))
        return picture

    def _stone(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The cliff: tall pillars and ledges lit from the upper left. Returns its picture and its shade (H, W)."""
        u, v = x * 0.5 + self.offset[0], y * 0.26 + self.offset[1]
        bump = texture(4, u, v)
        relief = bump - texture(4, u - 0.014, v - 0.006)
        shade = (0.24 + 0.75 * bump + 3.2 * relief).clamp(0.20, 1.15)
        shade = shade * (0.55 + 0.45 * smoothstep(self.half, self.half + 0.3, (across(x) - self.centre).abs()))
        stone = self.rock * shade
        if self.mossy:
            patch = smoothstep(0.38, 0.52, texture(6, x * 0.45 + self.offset[1], y * 0.45) + 1.5 * relief)
            stone = mix(stone, self.moss * (0.25 + 0.9 * shade), patch)
        return stone, shade

    def _water(self, picture: Tensor, x: Tensor, y: Tensor, t: float) -> Tensor:
        """The fall itself. Its texture moves along a square root of the depth, so the water speeds up as it falls."""
        row = down(y)
        depth = ((row - self.lip) / (self.pool - self.lip)).clamp(-0.1, 1.3)
        path = (row - self.lip + 0.06).clamp(min=0.0).sqrt()
        u = (x - self.centre) / (1 + 0.2 * depth)
        streaks = band_tile("streaks", str(x.device))
        slow = sample(streaks, u * 0.75 + self.offset[0], path * 1.5 - t * 0.80)
        fast = sample(streaks, u * 1.15 + self.offset[1], path * 1.9 - t * 1.30)
        streak = smoothstep(0.22, 0.58, 0.5 * slow + 0.5 * fast + 0.10 * (depth - 0.5))
        edge = self.half * (1 + 0.12 * depth) + 0.09 * (fast - 0.5) * (0.25 + depth) - u.abs()
        mask = smoothstep(-0.012, 0.022, edge) * smoothstep(-0.02, 0.01, row - self.lip) * (row < self.pool + 0.05)
        return mix(picture, mix(self.blue, self.white, streak), mask)

    def _pool(self, picture: Tensor, x: Tensor, y: Tensor, t: float) -> Tensor:
        row = down(y) - self.pool
        near = 1 / (row.clamp(min=0.0) + 0.10)
        u = x - self.centre
        ripple = texture(5, u * 0.09 * near + 0.5, near * 0.16 + t * 0.10)
        water = mix(self.deep, self.blue, smoothstep(0.42, 0.70, ripple))
        mirror = torch.exp(-(((across(x) - self.centre) / (self.half * 1.3)) ** 2)) * smoothstep(0.5, 0.0, row) * 0.55
        water = mix(water, self.white, mirror * (0.4 + ripple))
        foam = texture(2, u * 0.22 * near, near * 0.16 + t * 0.16)
        reach = ((across(x) - self.centre) / (self.half + 0.20)) ** 2 + (row / 0.17) ** 2
        water = mix(water, self.white, smoothstep(0.10, -0.10, reach * 0.5 - 0.62 + (0.5 - foam) * 1.3))
        shore = self.pool + 0.012 * torch.sin(across(x) * 9 + self.seed)
        return mix(picture, water, smoothstep(-0.006, 0.006, down(y) - shore))

    def _boulders(self, picture: Tensor, x: Tensor, y: Tensor, stone: Tensor, shade: Tensor) -> Tensor:
        """Round rocks at the rim of the pool, drawn together as one height field."""
        height = torch.full_like(x, -1.0)
        for offset, bottom, wide, tall in self.boulders:
            v = (down(y) - bottom) / tall
            round_ = 1 - ((across(x) - self.centre - offset) / wide) ** 2 - v**2
            height = torch.maximum(height, torch.where(v < 0.35, round_, -1.0))
        lift = smoothstep(0.75, 0.1, height)  # the rims catch the light
        rock = self.rock * (0.16 + 0.75 * shade * (0.4 + 0.6 * lift))
        if self.mossy:
            rock = mix(rock, stone * 0.9, 0.7)
        return mix(picture, rock, smoothstep(0.0, 0.06, height + 0.5 * (shade - 0.5)))

    def _mist(self, picture: Tensor, x: Tensor, y: Tensor, t: float) -> Tensor:
        wide = torch.exp(-(((across(x) - self.centre) / (self.half + 0.17)) ** 2))
        tall = torch.exp(-(((down(y) - self.pool + 0.03) / 0.13) ** 2))
        puff = texture(5, x * 0.45 + 0.07 * t, y * 0.5 + t * 0.16)
        return mix(picture, self.white, (wide * tall * (0.15 + 1.25 * puff)).clamp(0, 0.92))


def make_painter(params: SceneParams) -> Painter:
    """The painter of one waterfall clip."""
    return Waterfall(params)
