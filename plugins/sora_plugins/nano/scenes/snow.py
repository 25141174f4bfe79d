"""Snowfall: fat soft flakes sink in three layers in front of pines, a cabin or bare hills."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from .canvas import cell_random, colour, light_of, mix, sky, smoothstep
from .catalogue import SceneParams
from .renderer import Painter
from .shapes_nature import across, disc, down, lit, particle_tile, pine, sample, skyline, stars, texture

#: flake layers, far to near: tiles per picture height, sinking speed in heights per second, strength.
LAYERS = ((1.5, 0.17, 0.70), (1.0, 0.28, 0.85), (0.62, 0.46, 0.95))


class Snow:
    """Layout and colours of one clip; called, it paints a frame."""

    def __init__(self, params: SceneParams) -> None:
        rng = random.Random(params.seed)
        light = light_of(params.time_of_day)
        self.seed, self.light, self.setting = params.seed, light, params.attributes["setting"]
        self.night = params.time_of_day == "night"
        self.ground = rng.uniform(0.68, 0.74)
        self.drift = rng.choice((-1, 1)) * rng.uniform(0.03, 0.10)
        self.sun = (rng.choice((-1, 1)) * rng.uniform(0.45, 0.65), rng.uniform(0.14, 0.22))
        self.cabin_x = rng.uniform(-0.25, 0.25)
        self.snow = lit(light, 0.95, 0.97, 1.0)
        self.shadow = lit(light, 0.62, 0.71, 0.88)
        self.far = mix(lit(light, 0.66, 0.74, 0.87), light.haze, 0.35)
        self.pine = lit(light, 0.09, 0.24, 0.19)
        self.flake = mix(light.surface, colour(1, 1, 1), 0.55)

    def __call__(self, x: Tensor, y: Tensor, t: float) -> Tensor:
        """The picture (3, H, W) at X, Y and scene time t."""
        picture = self._sky(x, y, t)
        picture = self._hills(picture, x, y)
        if self.setting == "pines":
            picture = self._trees(picture, x, y, 0.17, 0.30, self.ground - 0.015, 1.0, self.far * 0.62)
            picture = self._trees(picture, x, y, 0.34, 0.56, self.ground + 0.07, 0.92, self.pine)
        elif self.setting == "cabin":
            picture = self._trees(picture, x, y, 0.42, 0.52, self.ground + 0.01, 0.9, self.pine)
            picture = self._cabin(picture, x, y, t)
        return self._flakes(picture, x, y, t)

    def _sky(self, x: Tensor, y: Tensor, t: float) -> Tensor:
        picture = sky(self.light, y, 0.75) * 0.86  # a dimmed sky, so that white flakes show
        mask, glow = disc(x, y, self.sun, 0.065)
        picture = mix(picture, self.light.sun, glow * 0.5)
        if self.night:
            picture = mix(picture, colour(1, 1, 1), torch.maximum(mask, stars(x, y, t, self.seed) * 0.7))
        return picture

    def _hills(self, picture: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Far hills and the snow field; the setting "hills" gets three tall bright ridges instead."""
        rows, columns = down(y), across(x)
        bare = self.setting == "hills"
        ridges = (
            ((0.28, 0.13, 2.2), (0.12, 0.09, 3.0), (0.0, 0.05, 2.0)) if bare else ((0.14, 0.06, 2.5), (0.0, 0.02, 2.0))
        )
        for index, (lift, swing, scale) in enumerate(ridges):
            nearness = index / (len(ridges) - 1)
            line = self.ground - lift + swing * skyline(random.Random(self.seed + index), columns, scale)
            below = rows - line
            top, base = mix(self.far, self.snow, max(nearness, 0.45 * bare)), mix(self.far * 0.9, self.shadow, nearness)
            body = mix(top, base, smoothstep(0.0, 0.34, below))
            if index == len(ridges) - 1:
                body = mix(body, self.snow, smoothstep(0.45, 0.7, texture(6, columns * 0.25, rows * 1.1)) * 0.7)
            picture = mix(picture, body, smoothstep(-0.005, 0.005, below))
        return picture

    def _trees(
        self, picture: Tensor, x: Tensor, y: Tensor, cell: float, tall: float, foot: float, chance: float, dark: Tensor
    ) -> Tensor:
        """A row of snow-laden pines, at most one in each cell along x."""
        columns = across(x) / cell
        index = columns.floor()
        size = tall * (0.72 + 0.28 * cell_random(index, index * 0 + self.seed, 1))
        middle = 0.5 + 0.30 * (cell_random(index, index * 0 + self.seed, 2) - 0.5)
        present = (cell_random(index, index * 0 + self.seed, 3) < chance).float()
        if self.setting == "cabin":  # a clearing for the cabin
            present = present * (((index + middle) * cell - self.cabin_x).abs() > 0.36)
        u = (columns - index - middle) * cell / size
        mask, snow = pine(u, 1 - (foot - down(y)) / size)
        tree = mix(dark * (0.9 + 0.8 * u.clamp(-0.3, 0.3)), self.snow, snow * 0.85)
        return mix(picture, tree, mask * present)

    def _cabin(self, picture: Tensor, x: Tensor, y: Tensor, t: float) -> Tensor:
        """A log cabin with a snowy roof, two lit windows, a door and smoke from its chimney."""
        u, v = across(x) - self.cabin_x, down(y) - (self.ground + 0.10)
        rise = (-v - 0.34).clamp(min=0.0)
        puff = texture(5, u * 0.6 + 0.1 * rise, v * 0.5 + t * 0.12)
        wide = 0.02 + 0.22 * rise
        smoke = (
            torch.exp(-(((u - 0.15 - 0.35 * rise) / wide) ** 2)) * smoothstep(0.33, 0.40, -v) * smoothstep(1.0, 0.4, -v)
        )
        picture = mix(picture, mix(self.snow, self.far, 0.5), smoke * (0.2 + puff).clamp(0, 0.8))
        wood, roof_line = lit(self.light, 0.42, 0.25, 0.14), -0.17 - (0.20 - 0.62 * u.abs())
        logs = 0.82 + 0.18 * torch.cos(v * 150)
        chimney = ((u - 0.15).abs() < 0.03) * (v > -0.37) * (v < -0.1)
        picture = mix(picture, lit(self.light, 0.45, 0.33, 0.30), chimney.float())
        wall = (u.abs() < 0.24) * (v < 0) * (v > roof_line)
        picture = mix(picture, wood * logs, wall.float())
        roof = (u.abs() < 0.31) * (v > roof_line - 0.035) * (v < roof_line + 0.035)
        picture = mix(picture, self.snow, roof.float())
        window = (((u.abs() - 0.145).abs() < 0.045) * ((v + 0.11).abs() < 0.04)).float()
        glow = torch.exp(-((u.abs() - 0.145) ** 2 + (v + 0.11) ** 2) / 0.006) * 0.45
        picture = mix(picture, colour(1.0, 0.66, 0.25), glow)
        picture = mix(picture, lit(self.light, 0.22, 0.12, 0.07), ((u.abs() < 0.045) * (v < 0) * (v > -0.15)).float())
        return mix(picture, colour(1.0, 0.84, 0.45), window)

    def _flakes(self, picture: Tensor, x: Tensor, y: Tensor, t: float) -> Tensor:
        tile = particle_tile("snow", str(x.device))
        cover = torch.zeros_like(x)
        for index, (scale, speed, strength) in enumerate(LAYERS):
            sway = 0.02 * torch.sin(5 * down(y) + 1.4 * t + index) - self.drift * (1 + index) * 0.5 * t
            layer = sample(
                tile, (across(x) + sway) * scale + 0.37 * index, (down(y) - speed * t) * scale + 0.21 * index
            )
            cover = torch.maximum(cover, layer * strength)
        return mix(picture, self.flake, cover.clamp(0, 1))


def make_painter(params: SceneParams) -> Painter:
    """The painter of one snow clip."""
    return Snow(params)
