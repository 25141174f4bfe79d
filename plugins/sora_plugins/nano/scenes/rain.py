"""Rain: slanted streaks fall in front of a lake, a forest or a city street, with rings where drops land."""

from __future__ import annotations

import random

import torch
from torch import Tensor
from torch.nn import functional as F

from .canvas import cell_random, colour, light_of, mix, sky, smoothstep
from .catalogue import SceneParams
from .renderer import Painter
from .shapes_nature import across, down, lit, particle_tile, pine, sample, skyline, texture

#: streak layers, far to near: tiles per picture height, falling speed in heights per second, strength.
LAYERS = ((1.15, 1.25, 0.45), (0.72, 1.7, 0.75))


class Rain:
    """Layout and colours of one clip; called, it paints a frame."""

    def __init__(self, params: SceneParams) -> None:
        rng = random.Random(params.seed)
        light = light_of(params.time_of_day)
        self.seed, self.light, self.setting = params.seed, light, params.attributes["setting"]
        self.time = params.time_of_day
        self.shore = rng.uniform(0.58, 0.64)
        self.slant = rng.choice((-1, 1)) * rng.uniform(0.08, 0.18)
        self.offset = rng.random()
        self.gloom = {"overcast": 0.72, "night": 0.85, "dawn": 0.85}[self.time]
        self.haze = mix(light.haze, light.sky_top, 0.3) * self.gloom
        if self.time == "night":  # city glow and mist keep the night readable
            self.haze = mix(self.haze, colour(0.22, 0.30, 0.46), 0.55)
        self.streak = mix(light.sky_low, colour(0.90, 0.94, 1.0), 0.75 if self.time != "night" else 0.5)
        self.window = colour(1.0, 0.80, 0.42)

    def __call__(self, x: Tensor, y: Tensor, t: float) -> Tensor:
        """The picture (3, H, W) at X, Y and scene time t."""
        row = down(y) - self.shore
        if self.setting == "forest":
            picture = self._forest(x, y, row)
        else:  # the lake and the wet street mirror what stands behind them
            shake = 0.008 * torch.sin(30 * row.clamp(min=0.0).sqrt() - 4 * t)
            mirrored = torch.where(row > 0, self.shore - 1.5 * row + shake, down(y)).expand_as(y)
            picture = self._city(x, mirrored) if self.setting == "city" else self._hills(x, mirrored)
            floor = lit(self.light, 0.22, 0.23, 0.26) if self.setting == "city" else lit(self.light, 0.20, 0.36, 0.46)
            picture = mix(picture, mix(picture, floor, 0.55), smoothstep(-0.004, 0.004, row))
        picture = mix(picture, self.streak, self._rings(x, y, t) * (0.35 if self.setting == "forest" else 0.7))
        return self._streaks(picture, x, y, t)

    def _sky(self, x: Tensor, y: Tensor) -> Tensor:
        picture = sky(self.light, y, self.shore) * self.gloom
        clouds = texture(6, x * 0.3 + self.offset, y * 0.6 + self.offset)
        return picture * (0.72 + 0.5 * clouds)

    def _hills(self, x: Tensor, y: Tensor) -> Tensor:
        picture = self._sky(x, y)
        for index, (lift, hazy) in enumerate(((0.13, 0.60), (0.035, 0.15))):
            line = self.shore - lift - 0.05 * skyline(random.Random(self.seed + index), across(x), 2.6)
            line = torch.minimum(line, torch.full_like(line, self.shore - 0.012))
            body = mix(lit(self.light, 0.13, 0.24, 0.22), self.haze, hazy)
            picture = mix(picture, body, smoothstep(-0.006, 0.006, y - line))
        return picture

    def _forest(self, x: Tensor, y: Tensor, row: Tensor) -> Tensor:
        """Three rows of firs, the farther the hazier, behind a wet meadow."""
        picture = mix(self._sky(x, y), self.haze, 0.5 * smoothstep(-0.5, 0.0, row))
        green = mix(lit(self.light, 0.07, 0.24, 0.13), self.haze, 0.12)
        meadow = mix(lit(self.light, 0.17, 0.35, 0.13), self.haze, 0.15) * (1.1 - 0.8 * row.clamp(0, 0.5))
        for index, (cell, tall, foot, hazy) in enumerate(
            ((0.16, 0.42, 0.0, 0.7), (0.24, 0.58, 0.03, 0.38), (0.40, 0.80, 0.12, 0.0))
        ):
            if index == 2:
                picture = mix(picture, meadow, smoothstep(-0.01, 0.01, row))
            columns = across(x) / cell
            cells = columns.floor()
            size = tall * (0.75 + 0.25 * cell_random(cells, cells * 0 + self.seed, 5 + index))
            u = (
                (columns - cells - 0.5 + 0.25 * (cell_random(cells, cells * 0 + self.seed, 9 + index) - 0.5))
                * cell
                / size
            )
            mask, _ = pine(u, 1 - (foot - row) / size)
            picture = mix(picture, mix(green * (1 + 1.2 * u.clamp(-0.3, 0.3)), self.haze, hazy), mask)
        return picture

    def _city(self, x: Tensor, y: Tensor) -> Tensor:
        """Two rows of buildings with big lit windows."""
        picture = self._sky(x, y)
        lights = 0.65 if self.time == "night" else 0.4
        for index, (cell, tall, hazy) in enumerate(((0.17, 0.50, 0.55), (0.27, 0.36, 0.05))):
            columns = across(x) / cell + self.offset
            cells = columns.floor()
            top = self.shore - tall * (0.45 + 0.55 * cell_random(cells, cells * 0 + self.seed, 11 + index))
            wide = 0.5 - 0.10 * cell_random(cells, cells * 0 + self.seed, 13 + index)
            mask = smoothstep(-0.004, 0.004, y - top) * ((columns - cells - 0.5).abs() < wide)
            wall = mix(lit(self.light, 0.20, 0.22, 0.28), self.haze, hazy)
            picture = mix(picture, wall, mask)
            if index == 1:
                u, v = across(x) / 0.054, (y - top) / 0.075
                pane = ((u - u.floor() - 0.5).abs() < 0.28) * ((v - v.floor() - 0.5).abs() < 0.27) * mask
                glowing = (cell_random(u.floor(), v.floor() + self.seed % 64, 17) < lights).float()
                picture = mix(picture, self.window, pane * glowing * (0.95 if self.time == "night" else 0.8))
        return picture

    def _rings(self, x: Tensor, y: Tensor, t: float) -> Tensor:
        """Rings spreading on the ground, one in each cell of a floor in perspective; (H, W)."""
        first = int((down(y) < self.shore).sum())
        if first == y.shape[0]:
            return torch.zeros_like(x)
        row = down(y)[first:] - self.shore
        near = 1 / (row + 0.12)
        u, v = across(x) * near * 1.1, near * 2.0
        iu, iv = u.floor(), v.floor()
        age = cell_random(iu, iv, 21) + t * 1.1
        turn = age.floor()
        age = age - turn
        du = u - iu - 0.5 + 0.2 * (cell_random(iu + turn, iv, 22) - 0.5)
        distance = (du.square() + (v - iv - 0.5).square()).sqrt()
        ring = torch.exp(-(((distance - 0.06 - 0.34 * age) / 0.07) ** 2)) * (1 - age) * smoothstep(0.03, 0.16, row)
        return F.pad(ring, (0, 0, first, 0))

    def _streaks(self, picture: Tensor, x: Tensor, y: Tensor, t: float) -> Tensor:
        tile = particle_tile("rain", str(x.device))
        cover = torch.zeros_like(x)
        for index, (scale, speed, strength) in enumerate(LAYERS):
            u = (across(x) + self.slant * down(y)) * scale + 0.41 * index + self.offset
            layer = sample(tile, u, (down(y) - speed * t) * scale + 0.23 * index)
            cover = torch.maximum(cover, layer * strength)
        return mix(picture, self.streak, cover.clamp(0, 1))


def make_painter(params: SceneParams) -> Painter:
    """The painter of one rain clip."""
    return Rain(params)
