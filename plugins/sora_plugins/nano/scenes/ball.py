"""Ball: a big glossy ball that bounces, or rolls to and fro with a turning stripe, on one of four floors."""

from __future__ import annotations

import math
import random

import torch
from torch import Tensor

from .canvas import Rgb, colour, light_of, mix, noise, sky, smoothstep
from .catalogue import SceneParams
from .renderer import Painter
from .shapes_objects import EDGE, band, clouds

BALLS: dict[str, Rgb] = {
    "red": (0.88, 0.07, 0.07),
    "blue": (0.08, 0.22, 0.88),
    "green": (0.05, 0.66, 0.16),
    "yellow": (1.0, 0.86, 0.05),
    "orange": (1.0, 0.46, 0.02),
    "purple": (0.50, 0.12, 0.76),
    "pink": (1.0, 0.42, 0.70),
    "white": (0.95, 0.95, 0.95),
}
HORIZON = 0.56


def make_painter(params: SceneParams) -> Painter:
    """A painter of one ball; its size, place and rhythm come from the seed."""
    rng = random.Random(params.seed)
    skin = colour(*BALLS[params.attributes["colour"]])
    stripe = colour(0.15, 0.2, 0.35) if params.attributes["colour"] in ("white", "yellow") else colour(0.97, 0.97, 0.95)
    floor = params.attributes["floor"]
    rolling = params.attributes["motion"] == "rolling"
    radius = rng.uniform(0.22, 0.28) if rolling else rng.uniform(0.20, 0.25)
    ground = 0.84 + rng.uniform(-0.03, 0.03)
    side = rng.choice((-1.0, 1.0))
    start = rng.uniform(-0.25, 0.25)
    phase = rng.uniform(0, 1)
    bounce = rng.uniform(0.28, 0.36)
    wall = colour(*rng.choice(((0.62, 0.70, 0.74), (0.76, 0.70, 0.60), (0.66, 0.64, 0.72))))
    offset = rng.uniform(0, 1)

    def paint(x: Tensor, y: Tensor, t: float) -> Tensor:
        """The picture at scene time t."""
        if rolling:
            # to and fro, near one end at the start, so that a short clip shows one clear direction
            centre, lift = side * 0.55 * math.sin(0.9 * t - 1.2 + start), 0.0
            angle = centre / radius
        else:
            step = (t / 1.5 + phase) % 1.0
            centre, lift = start + side * 0.25 * math.sin(0.7 * t - 0.8), 4 * bounce * step * (1 - step)
            angle = 0.4 * side
        picture = _backdrop(x, y, t, floor, wall, offset)
        picture = _floor(picture, x, y, floor, offset)
        picture = _shadow(picture, x - centre, y - ground, radius, lift)
        return _ball(picture, x - centre, y - (ground - radius - lift), radius, (skin, stripe), angle)

    return paint


def _backdrop(x: Tensor, y: Tensor, t: float, floor: str, wall: Tensor, offset: float) -> Tensor:
    """A plain wall with a skirting board, or the sky over grass."""
    if floor == "grass":
        light = light_of("day")
        return clouds(sky(light, y, HORIZON), light, x + 5 * offset, y, 0.05 * t, 0.4, HORIZON)
    shade = 1.08 - 0.30 * torch.exp(-(((y - HORIZON) / 0.35) ** 2)) - 0.06 * (x + 0.3) ** 2
    picture = wall * shade.clamp(0.4, 1.1)
    board = smoothstep(HORIZON - 0.055, HORIZON - 0.045, y)
    return mix(picture, wall * 0.35 + 0.55, board)


def _floor(picture: Tensor, x: Tensor, y: Tensor, floor: str, offset: float) -> Tensor:
    """The floor in perspective: planks, tiles, mown grass or plain blue."""
    rows = band(y, HORIZON - EDGE, 9.0)
    if rows.start == rows.stop:
        return picture
    x, y = x[rows], y[rows]
    near = (y - HORIZON).clamp(min=0.01)
    depth = 0.30 / near  # 1 about where the ball stands
    wide = x * depth
    fade = smoothstep(0.02, 0.12, near)  # patterns blur out before they get finer than a pixel
    if floor == "wooden":
        lane = (wide / 0.36).floor()
        seam = (wide / 0.36 - lane - 0.5).abs()
        tone = noise(2, lane * 0.37 + offset, depth * 0.05 + lane * 0.21) + noise(3, wide * 0.9, depth * 0.12)
        pattern = colour(0.76, 0.54, 0.34) * (0.75 + 0.55 * (0.5 * tone - 0.15))
        spread = depth * (1 + (x / near) ** 2).sqrt()  # planks on the screen are this much narrower
        fade = smoothstep(0.03, 0.08, 0.36 / spread)
        pattern = mix(pattern, colour(0.36, 0.22, 0.12), smoothstep(0.014, 0.002, (0.5 - seam) * 0.36 / spread))
        plain = colour(0.70, 0.50, 0.31)
    elif floor == "tiled":
        a, b = torch.sin(wide * math.pi / 0.50), torch.sin(depth * math.pi / 0.50 + offset * 6)
        check = smoothstep(-0.06, 0.06, a * b)
        pattern = mix(colour(0.26, 0.28, 0.33), colour(0.90, 0.90, 0.88), check)
        plain = colour(0.58, 0.59, 0.60)
    elif floor == "grass":
        mown = smoothstep(-0.25, 0.25, torch.sin(wide * math.pi / 0.45))
        blades = noise(2, wide * 0.9, depth * 0.9) - 0.5
        pattern = mix(colour(0.22, 0.52, 0.12), colour(0.38, 0.68, 0.20), mown) * (1 + 0.6 * blades)
        plain = colour(0.36, 0.62, 0.20)
    else:
        pattern = plain = colour(0.16, 0.46, 0.80)
    ground = mix(plain, pattern, fade) * (0.80 + 0.45 * near)
    picture[:, rows] = mix(picture[:, rows], ground, smoothstep(-EDGE / 2, EDGE / 2, y - HORIZON))
    return picture


def _shadow(picture: Tensor, x: Tensor, y: Tensor, radius: float, lift: float) -> Tensor:
    """A soft shadow under the ball, wider and paler the higher it is."""
    size = radius * (1.0 + 0.9 * lift)
    rows = band(y, -size, size)
    flat = (x[rows] / size) ** 2 + (y[rows] / (0.30 * size)) ** 2
    dark = torch.exp(-flat * 1.2) * 0.75 / (1 + 2.2 * lift)
    picture[:, rows] = picture[:, rows] * (1 - dark)
    return picture


def _ball(picture: Tensor, x: Tensor, y: Tensor, radius: float, paint: tuple[Tensor, Tensor], angle: float) -> Tensor:
    """A lit sphere; the stripe goes round it and turns by `angle` about the line of sight."""
    rows = band(y, -radius - EDGE, radius + EDGE)
    if rows.start == rows.stop:
        return picture
    nx, ny = x[rows] / radius, y[rows] / radius
    flat = nx * nx + ny * ny
    nz = (1 - flat).clamp(min=0).sqrt()
    across = -nx * math.sin(angle) + ny * math.cos(angle)
    soft = EDGE / radius
    skin = mix(paint[0], paint[1], smoothstep(0.20 + soft, 0.20 - soft, across.abs()))
    lit = (-0.45 * nx - 0.62 * ny + 0.64 * nz).clamp(min=0)
    shine = (-0.36 * nx - 0.42 * ny + 0.83 * nz).clamp(min=0) ** 28
    bounce_light = 0.12 * ny.clamp(min=0)
    solid = skin * (0.36 + 0.78 * lit + bounce_light) + 0.75 * shine
    picture[:, rows] = mix(picture[:, rows], solid.clamp(0, 1), smoothstep(1 + soft, 1 - soft, flat.sqrt()))
    return picture
