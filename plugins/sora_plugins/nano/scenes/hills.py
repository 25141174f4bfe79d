"""Hills: layers of mountains or rolling hills under a sun, with drifting clouds, mist and wind in the grass."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from .canvas import Light, Rgb, cell_random, colour, colours, light_of, mix, noise, sky, smoothstep
from .catalogue import SceneParams
from .renderer import Painter
from .shapes_objects import EDGE, band, clouds, ellipse

#: terrain -> (sunlit, shaded) colour of the nearest layer
SOIL: dict[str, tuple[Rgb, Rgb]] = {
    "green hills": ((0.44, 0.76, 0.20), (0.10, 0.40, 0.12)),
    "golden hills": ((0.98, 0.80, 0.30), (0.66, 0.42, 0.10)),
    "mountains": ((0.50, 0.54, 0.62), (0.22, 0.27, 0.38)),
}


def make_painter(params: SceneParams) -> Painter:
    """A painter of one landscape; ridges, sun and clouds come from the seed."""
    rng = random.Random(params.seed)
    light = light_of(params.time_of_day)
    terrain = params.attributes["terrain"]
    horizon = 0.56 + rng.uniform(-0.04, 0.04)
    offset = rng.uniform(0, 1)
    sun_x = rng.choice((-1, 1)) * rng.uniform(0.2, 0.5)
    sun_y = 0.16 if params.time_of_day == "day" else horizon - (0.30 if terrain == "mountains" else 0.16)
    cover = rng.uniform(0.3, 0.55)
    salt = rng.randrange(1000)

    def paint(x: Tensor, y: Tensor, t: float) -> Tensor:
        """The picture at scene time t."""
        picture = _heaven(light, x, y, t, (sun_x, sun_y, cover, offset), horizon)
        if terrain == "mountains":
            for layer, (height, width) in enumerate(((0.36, 0.62), (0.27, 0.46))):
                shape = (horizon + 0.06 + 0.10 * layer, height, width)
                picture = _peaks(picture, light, x, y, shape, salt + layer, layer)
                picture = _mist(picture, light, x, y, t, horizon + 0.05 + 0.12 * layer, offset + 0.3 * layer, 0.85)
            return _slope(picture, light, x, y, t, colours(*SOIL["green hills"]), (0.86, 0.10, offset, 0.25), sun_x)
        picture = _peaks(picture, light, x, y, (horizon + 0.02, 0.14, 0.6), salt, -1)
        for layer, (top, swell) in enumerate(((horizon + 0.0, 0.22), (horizon + 0.12, 0.24), (horizon + 0.27, 0.22))):
            haze = (0.40, 0.16, 0.0)[layer]
            hill = (top, swell, offset + 0.37 * layer, haze)
            picture = _slope(picture, light, x, y, t, colours(*SOIL[terrain]), hill, sun_x)
            if layer == 0:
                picture = _mist(picture, light, x, y, t, horizon + 0.07, offset, 0.4)
        return picture

    return paint


def _heaven(
    light: Light, x: Tensor, y: Tensor, t: float, place: tuple[float, float, float, float], horizon: float
) -> Tensor:
    """Sky, glowing sun and clouds that drift to the right."""
    sun_x, sun_y, cover, offset = place
    dx, dy = x - sun_x, y - sun_y
    picture = sky(light, y, horizon + 0.05)
    low = sun_y > 0.3
    halo = torch.exp(-(dx**2 + dy**2) / (0.10 if low else 0.04))
    picture = clouds(picture, light, x + 7 * offset, y, 0.15 * t, cover * (0.55 if low else 1.0), horizon + 0.05)
    picture = mix(picture, light.sun, halo * 0.55)  # over the clouds: thin cloud does not hide the sun
    size = 0.10 if low else 0.085
    disc = mix(light.sun, colour(1, 1, 0.86), 0.5)
    rows = band(y, sun_y - size - 0.02, sun_y + size + 0.02)
    picture[:, rows] = mix(picture[:, rows], disc, ellipse(dx[rows], dy[rows], size, size, 0.015))
    return picture


def _peaks(
    picture: Tensor, light: Light, x: Tensor, y: Tensor, shape: tuple[float, float, float], salt: int, layer: int
) -> Tensor:
    """Pointed mountains, lit from one side, with snow on the high ones. `layer` -1 is a far blue range."""
    foot, height, width = shape
    rows = band(y, foot - 1.2 * height, foot + 0.35)  # nearer layers hide what is lower
    if rows.start == rows.stop:
        return picture
    x, y = x[rows], y[rows]
    row = x[:1]  # a ridge line depends on x alone
    cell = (row / width).floor()
    ridge, peak_x, peak_h = torch.full_like(row, -9.0), row * 0, row * 0
    for step in (-1, 0, 1):
        index = cell + step
        centre = (index + 0.3 + 0.4 * cell_random(index, index * 0, salt)) * width
        top = height * (0.65 + 0.35 * cell_random(index, index * 0, salt + 5))
        line = top - (row - centre).abs() * height * 1.15 / width
        better = line > ridge
        ridge = torch.where(better, line, ridge)
        peak_x, peak_h = torch.where(better, centre, peak_x), torch.where(better, top, peak_h)
    jag = noise(1, row * 0.55 + 0.13 * salt, row * 0 + 0.3) - 0.5
    depth = y - (foot - ridge - 0.10 * height * jag)
    grain = noise(3, x * 0.7 + 0.1 * salt, y * 0.9) - 0.5
    lit = smoothstep(0.02, -0.02, x - peak_x + grain * 0.22 - (foot - peak_h - y) * 0.25)
    sunlit, shaded = colours(*SOIL["mountains"])
    # low down both flanks look alike, or the valleys would show a seam
    lit = mix(lit, 0.35 - 0.9 * grain, smoothstep(0.45 * height, 0.85 * height, y - foot + peak_h))
    rock = mix(shaded, sunlit, lit) * (1 + 0.5 * grain)
    if layer >= 0:
        line = foot - peak_h + 0.36 * height + grain * 0.18 - 0.25 * (height - peak_h)
        rock = mix(rock, mix(colour(0.62, 0.70, 0.86), colour(1, 1, 1), lit), smoothstep(0.015, -0.015, y - line))
    haze = (0.42, 0.18)[layer] if layer >= 0 else 0.6
    rock = mix(rock * light.surface, light.haze, haze)
    picture[:, rows] = mix(picture[:, rows], rock, smoothstep(-EDGE, EDGE, depth))
    return picture


def _mist(
    picture: Tensor, light: Light, x: Tensor, y: Tensor, t: float, level: float, offset: float, strength: float
) -> Tensor:
    """A bank of mist that drifts along the foot of a layer."""
    rows = band(y, level - 0.2, level + 0.2)
    if rows.start == rows.stop:
        return picture
    x, y = x[rows], y[rows]
    veil = noise(7, x * 0.3 - 0.07 * t + offset, y * 0.8 + offset)
    bank = torch.exp(-(((y - level) / 0.09) ** 2)) * smoothstep(0.3, 0.75, veil)
    picture[:, rows] = mix(picture[:, rows], mix(light.haze, light.sun, 0.35), bank * strength)
    return picture


def _slope(
    picture: Tensor,
    light: Light,
    x: Tensor,
    y: Tensor,
    t: float,
    soil: tuple[Tensor, ...],
    shape: tuple[float, float, float, float],
    sun_x: float,
) -> Tensor:
    """One rolling hill; the wind runs over it as light bands to the right."""
    top, swell, offset, haze = shape
    rows = band(y, top - 0.6 * swell, 9.0)
    if rows.start == rows.stop:
        return picture
    x, y = x[rows], y[rows]
    row = x[:1]
    ridge = top - swell * (noise(7, row * 0.22 + offset, row * 0 + offset) - 0.5) * 1.3
    depth = y - ridge
    wind = noise(5, (x - 0.28 * t) * 0.45 + offset, y * 1.3 + offset)
    after, before = (noise(7, (row + d) * 0.22 + offset, row * 0 + offset) for d in (0.05, -0.05))
    slope = (after - before) * 3
    facing = slope * (-1 if sun_x > 0 else 1)
    bright = smoothstep(0.26, -0.03, depth) * 0.55 + (wind - 0.5) * 1.25 - facing * 0.5 + 0.22
    ground = mix(soil[1], soil[0], bright.clamp(0, 1))
    ground = mix(ground * light.surface, light.haze, haze)
    picture[:, rows] = mix(picture[:, rows], ground, smoothstep(-EDGE, EDGE, depth))
    return picture
