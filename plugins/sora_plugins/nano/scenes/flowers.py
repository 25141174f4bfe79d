"""Flowers: a meadow of big blooms that sway in the wind, under a sky with clouds."""

from __future__ import annotations

import math
import random

import torch
from torch import Tensor

from .canvas import Light, Rgb, cell_random, colour, colours, light_of, mix, noise, sky, smoothstep
from .catalogue import SceneParams
from .renderer import Painter
from .shapes_objects import EDGE, band, clouds, ellipse

#: colour name -> (petal tip, petal base, heart)
BLOOMS: dict[str, tuple[Rgb, Rgb, Rgb]] = {
    "red": ((0.93, 0.06, 0.08), (0.74, 0.02, 0.05), (0.15, 0.06, 0.05)),
    "yellow": ((1.0, 0.94, 0.12), (1.0, 0.82, 0.04), (0.42, 0.22, 0.05)),
    "white": ((1.0, 1.0, 1.0), (0.84, 0.86, 0.92), (1.0, 0.78, 0.10)),
    "purple": ((0.58, 0.20, 0.90), (0.36, 0.06, 0.62), (1.0, 0.85, 0.25)),
    "pink": ((1.0, 0.46, 0.74), (0.90, 0.20, 0.52), (1.0, 0.88, 0.35)),
    "orange": ((1.0, 0.60, 0.05), (1.0, 0.46, 0.01), (0.36, 0.14, 0.04)),
}
#: rows from far to near: (height of the blooms in the picture, radius, distance of neighbours)
ROWS = (
    (0.555, 0.020, 0.085),
    (0.590, 0.028, 0.12),
    (0.640, 0.040, 0.16),
    (0.705, 0.058, 0.22),
    (0.800, 0.080, 0.30),
    (0.930, 0.110, 0.42),
    (1.150, 0.140, 0.56),
    (1.420, 0.170, 0.70),
)


def make_painter(params: SceneParams) -> Painter:
    """A painter of one meadow; flower places, hills and wind come from the seed."""
    rng = random.Random(params.seed)
    light = light_of(params.time_of_day)
    bloom = colours(*BLOOMS[params.attributes["colour"]])
    shift = rng.uniform(-0.03, 0.03)
    horizon = 0.50 + shift
    offset = rng.uniform(0, 1)
    cover = {"day": 0.5, "overcast": 0.85}.get(params.time_of_day, 0.4)
    petals = rng.choice((5, 6))
    salt = rng.randrange(1000)
    sun_x = rng.uniform(-0.6, 0.6)

    def paint(x: Tensor, y: Tensor, t: float) -> Tensor:
        """The picture at scene time t."""
        picture = clouds(sky(light, y, horizon), light, x + 5 * offset, y, 0.08 * t, cover, horizon)
        if params.time_of_day != "overcast":
            level = 0.14 if params.time_of_day == "day" else horizon - 0.20
            glow = torch.exp(-((x - sun_x) ** 2 + (y - level) ** 2) / 0.05)
            picture = mix(picture, light.sun, glow * 0.5)
            disc = mix(light.sun, colour(1, 1, 0.86), 0.5)
            picture = mix(picture, disc, ellipse(x - sun_x, y - level, 0.08, 0.08, 0.015))
        picture = _meadow(picture, light, x, y, t, (horizon, offset), bloom)
        for index, (level, radius, pitch) in enumerate(ROWS):
            place = (level + shift, radius, pitch)
            picture = _flower_row(picture, light, x, y, t, place, bloom, petals, salt + 10 * index)
        return picture

    return paint


def _wind(x: Tensor, t: float, depth: float) -> Tensor:
    """How far the wind bends what stands at x, about -1 to 1; gusts travel to the right."""
    return torch.sin(3.2 * x - 3.0 * t + 2 * depth) * 0.7 + math.sin(1.3 * t + depth) * 0.3


def _meadow(
    picture: Tensor, light: Light, x: Tensor, y: Tensor, t: float, place: tuple[float, float], bloom: tuple[Tensor, ...]
) -> Tensor:
    """Far hills and the grass, darker and coarser towards the viewer, with a haze of far flowers."""
    horizon, offset = place
    row = x[:1]
    ridge = horizon - 0.03 - 0.16 * (noise(7, row * 0.25 + offset, row * 0 + offset) - 0.3).clamp(0, 1)
    hill = mix(colour(0.22, 0.46, 0.30) * light.surface, light.haze, 0.35)
    picture = mix(picture, hill, smoothstep(-EDGE, EDGE, y - ridge))
    rows = band(y, horizon - 0.03, 9.0)
    if rows.start == rows.stop:
        return picture
    x, y = x[rows], y[rows]
    depth = (y - horizon).clamp(0, 1)
    scale = 1 / (0.12 + depth)
    bend = _wind(x, t, 0.0) * 0.03
    blades = noise(3, (x + bend * (1 - y)) * scale * 0.45 + offset, y * 0.16) - 0.5
    gust = smoothstep(-0.2, 1.0, _wind(x, t, 1.0 - 2.0 * float(offset)))
    grass = mix(colour(0.40, 0.68, 0.18), colour(0.08, 0.30, 0.07), smoothstep(0.0, 0.5, depth))
    grass = grass * (1 + 1.1 * blades + 0.22 * gust)
    specks = smoothstep(0.45, 0.6, noise(2, x * 1.3 + offset, depth * 5.0)) * smoothstep(0.10, 0.03, depth)
    grass = mix(grass, bloom[0], specks * 0.85) * light.surface
    grass = mix(grass, light.haze, smoothstep(0.10, 0.0, depth) * 0.25)
    picture[:, rows] = mix(picture[:, rows], grass, smoothstep(-EDGE, EDGE, y - horizon))
    return picture


def _flower_row(
    picture: Tensor,
    light: Light,
    x: Tensor,
    y: Tensor,
    t: float,
    place: tuple[float, float, float],
    bloom: tuple[Tensor, ...],
    petals: int,
    salt: int,
) -> Tensor:
    """One row of flowers: one bloom a cell, on a bent stem with a leaf."""
    level, radius, pitch = place
    rows = band(y, level - 1.9 * radius, level + 5 * radius)
    if rows.start == rows.stop:
        return picture
    x, y = x[rows], y[rows]
    part = picture[:, rows]
    cell = (x[:1] / pitch + 0.01 * salt).floor()
    zero = cell * 0
    middle = (cell + 0.5 - 0.01 * salt) * pitch
    foot_x = middle + (cell_random(cell, zero, salt) - 0.5) * max(0.0, pitch - 3.1 * radius)
    head_x = foot_x + _wind(middle, t, level * 9) * 0.75 * radius
    head_y = level + (cell_random(cell, zero, salt + 1) - 0.5) * 1.4 * radius
    below = ((y - head_y) / (5 * radius)).clamp(0, 1)
    stem_x = head_x + (foot_x - head_x) * (1 - (1 - below) ** 2)
    stem = smoothstep(0.10 * radius + EDGE / 2, 0.10 * radius - EDGE / 2, (x - stem_x).abs()) * (y > head_y)
    green = colour(0.16, 0.46, 0.10) * light.surface
    if radius > 0.05:
        side = (x - stem_x) / radius
        drop = (y - head_y) / radius - 2.2
        leaf = ellipse(side.abs() - 0.6 + 0.45 * drop, drop, 0.30, 0.75, 0.1)
        stem = torch.maximum(stem, leaf)
    part = mix(part, green, stem)
    near = band(y, level - 1.9 * radius, level + 1.9 * radius)
    if near.start == near.stop:
        picture[:, rows] = part
        return picture
    dx, dy = (x[near] - head_x) / radius, (y[near] - head_y) / (0.88 * radius)
    distance = (dx * dx + dy * dy).sqrt()
    turn = cell_random(cell, zero, salt + 2) * 6.28 + 0.12 * _wind(middle, t, level * 5)
    wave = torch.cos(petals * (torch.atan2(dy, dx) + turn))
    soft = EDGE / radius
    petal = smoothstep(soft, -soft, distance - 0.80 - 0.22 * wave)
    tone = mix(bloom[1], bloom[0], (smoothstep(0.2, 0.75, distance) * (0.75 + 0.25 * wave)).clamp(0, 1))
    heart = smoothstep(0.30 + soft, 0.30 - soft, distance)
    head = mix(tone, bloom[2], heart) * (0.4 * light.surface + 0.6)  # petals keep their colour at sunset
    head = head * (1.04 - 0.14 * dy)
    part[:, near] = mix(part[:, near], head, petal)
    picture[:, rows] = part
    return picture
