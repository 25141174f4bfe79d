"""Fire: a wide flame on logs, in the open at night or in a brick fireplace."""

from __future__ import annotations

import math
import random

import torch
from torch import Tensor

from .canvas import Rgb, cell_random, colour, colours, mix, noise, smoothstep
from .catalogue import SceneParams
from .renderer import Painter
from .shapes_objects import band, box, capsule, dots, ellipse, pine

#: colour name -> (outer, middle, core, light thrown on the surroundings)
RAMPS: dict[str, tuple[Rgb, Rgb, Rgb, Rgb]] = {
    "orange": ((0.80, 0.13, 0.02), (1.0, 0.52, 0.05), (1.0, 0.95, 0.55), (1.0, 0.50, 0.18)),
    "blue": ((0.03, 0.10, 0.75), (0.10, 0.45, 1.0), (0.75, 0.95, 1.0), (0.22, 0.45, 1.0)),
    "green": ((0.02, 0.42, 0.08), (0.15, 0.88, 0.20), (0.85, 1.0, 0.60), (0.25, 0.95, 0.30)),
}


def make_painter(params: SceneParams) -> Painter:
    """A painter of one fire; its place, size and wind come from the seed."""
    rng = random.Random(params.seed)
    indoors = params.attributes["setting"] == "fireplace"
    ramp = colours(*RAMPS[params.attributes["colour"]])
    centre = rng.uniform(-0.15, 0.15)
    base = 0.80 if indoors else 0.82
    height = rng.uniform(0.42, 0.48) if indoors else rng.uniform(0.56, 0.68)
    width = rng.uniform(0.25, 0.31)
    offset = rng.uniform(0, 1)
    salt = rng.randrange(1000)

    def paint(x: Tensor, y: Tensor, t: float) -> Tensor:
        """The picture at scene time t."""
        u = x - centre
        flicker = 1 + 0.10 * math.sin(9.0 * t + 6 * offset) + 0.07 * math.sin(14.3 * t)
        glow = torch.exp(-((u / 0.75) ** 2 + ((y - base + 0.15) / 0.6) ** 2)) * flicker
        scenery = _fireplace if indoors else _campsite
        picture = scenery(u, y, base, glow, ramp[3], salt)
        picture = _logs(picture, u, y, base, ramp)
        picture = _sparks(picture, u, y, t, (base, 0.2 if indoors else -0.2), ramp[1], salt)
        return _flame(picture, u, y, t, (base, height, width, offset), ramp)

    return paint


def _flame(
    picture: Tensor, u: Tensor, y: Tensor, t: float, shape: tuple[float, float, float, float], ramp: tuple[Tensor, ...]
) -> Tensor:
    """Noise rising through a bell shape; the higher, the more the noise tears it into tongues."""
    base, height, width, offset = shape
    rows = band(y, base - height * 1.7, base + 0.1)
    if rows.start == rows.stop:
        return picture
    u, y = u[rows], y[rows]
    v = (base - y) / height
    lift = v.clamp(0, 1.6)
    sway = (noise(6, u * 0.25 + offset, y * 0.3 + t * 0.30) - 0.5) * 0.32 * lift
    tongues = noise(5, (u + sway) * 1.1 + offset, y * 0.36 + t * 0.42) - 0.5
    curls = noise(3, (u + sway) * 1.1 - offset, y * 0.7 + t * 0.95) - 0.5
    body = 1.15 - ((u + sway) / width) ** 2 * (0.8 + 1.2 * lift) - 0.8 * lift - 0.35 * lift**3
    field = body + (tongues * 1.55 + curls * 0.8) * (0.25 + lift)
    foot = smoothstep(-0.16, 0.04, v)
    field = field * foot
    hot = mix(ramp[0], ramp[1], smoothstep(0.12, 0.55, field))
    hot = mix(hot, ramp[2], smoothstep(0.50, 1.15, field))
    picture[:, rows] = mix(picture[:, rows], hot, smoothstep(0.0, 0.22, field) * foot)
    return picture


def _logs(picture: Tensor, u: Tensor, y: Tensor, base: float, ramp: tuple[Tensor, ...]) -> Tensor:
    """Two crossed logs and a bed of embers under the flame."""
    rows = band(y, base - 0.12, base + 0.14)
    if rows.start == rows.stop:
        return picture
    u, y = u[rows], y[rows] - base
    part = picture[:, rows]
    part = mix(part, mix(ramp[0], ramp[1], 0.4), ellipse(u, y - 0.04, 0.30, 0.045, 0.03))
    for start, end in (((-0.36, 0.09), (0.22, -0.02)), ((0.36, 0.09), (-0.22, -0.02))):
        distance = capsule(u, y, start, end)
        wood = mix(colour(0.20, 0.10, 0.05), ramp[3] * 0.75, smoothstep(0.02, -0.05, y - 0.05 + distance * 0.8))
        part = mix(part, wood, smoothstep(0.046, 0.036, distance))
    picture[:, rows] = part
    return picture


def _sparks(
    picture: Tensor, u: Tensor, y: Tensor, t: float, reach: tuple[float, float], hue: Tensor, salt: int
) -> Tensor:
    """A few fat sparks that rise over the flame and die with height."""
    base, top = reach
    drift = 0.05 * torch.sin(y * 7 + t * 2)
    spark = dots((u + drift) / 0.15, (y + 0.55 * t) / 0.22, salt, 0.45, 0.09, 0.22 / 0.15)
    spark = spark * smoothstep(0.5, 0.15, u.abs()) * smoothstep(base, base - 0.2, y) * smoothstep(top, top + 0.3, y)
    return mix(picture, mix(hue, colour(1, 1, 1), 0.25), (spark * 1.3).clamp(0, 1))


def _campsite(u: Tensor, y: Tensor, base: float, glow: Tensor, hue: Tensor, salt: int) -> Tensor:
    """Night sky, big pines on both sides and firelit ground with stones."""
    horizon = base - 0.14
    picture = mix(colour(0.02, 0.03, 0.10), colour(0.06, 0.07, 0.17), smoothstep(-0.4, horizon, y))
    picture = picture + hue * (0.10 * glow)
    cell = (u[:1] / 0.40).floor()
    size = 0.62 + 0.25 * cell_random(cell, cell * 0, salt)
    tree = pine((u[:1] / 0.40 - cell - 0.5) * 0.40 / size * 1.1, (y - horizon - 0.03 + size) / size)
    tree = tree * (y[:, :1] < horizon + 0.03) * ((cell * 0.40 + 0.2).abs() > 0.35)  # no tree behind the flame
    picture = mix(picture, colour(0.01, 0.03, 0.04) + hue * (0.16 * glow), tree)
    dirt = noise(2, u * 0.5, y * 1.3) * 0.5 + 0.55
    ground = (colour(0.05, 0.05, 0.07) + mix(hue, colour(0.9, 0.7, 0.5), 0.3) * glow**2 * 0.62) * dirt
    picture = mix(picture, ground, smoothstep(horizon - 0.01, horizon + 0.02, y))
    rows = band(y, base - 0.05, base + 0.25)
    for index in range(7) if rows.start < rows.stop else ():
        angle = math.pi * (index + 0.5) / 7
        px, py = -0.46 * math.cos(angle), base + 0.035 + 0.10 * math.sin(angle)
        dx, dy = u[rows] - px, y[rows] - py
        stone = colour(0.10, 0.10, 0.12) + mix(hue, colour(1, 1, 1), 0.3) * (0.55 * smoothstep(0.03, -0.05, dy))
        picture[:, rows] = mix(picture[:, rows], stone, ellipse(dx, dy, 0.075, 0.05))
    return picture


def _fireplace(u: Tensor, y: Tensor, base: float, glow: Tensor, hue: Tensor, salt: int) -> Tensor:
    """A dark opening in a brick wall, with a wooden shelf above and a stone hearth below."""
    row = (y / 0.11).floor()
    shift = u / 0.24 + 0.5 * (row - 2 * (row / 2).floor())
    upright = (shift - shift.floor() - 0.5).abs() * 0.24 - 0.105
    joint = torch.maximum(upright, (y / 0.11 - row - 0.5).abs() * 0.11 - 0.042)
    tone = 0.75 + 0.5 * cell_random(shift.floor(), row, salt)
    brick = mix(colour(0.50, 0.22, 0.15) * tone, colour(0.22, 0.17, 0.15), smoothstep(-0.008, 0.008, joint))
    light = colour(0.20, 0.19, 0.22) + mix(hue, colour(1, 1, 1), 0.2) * (glow * 1.15)
    picture = brick * light
    inside = colour(0.03, 0.02, 0.02) + hue * (glow * 0.16)
    mouth = box(u, y - 0.62, 0.50, 0.30)  # square mouth under an arch
    mouth = torch.maximum(mouth, ellipse(u, y - 0.34, 0.50, 0.13))
    picture = mix(picture, inside, mouth)
    shelf = colour(0.50, 0.30, 0.16) * light * (1.25 - 4 * (y - 0.04).abs()).clamp(0.4, 1.3)
    picture = mix(picture, shelf, box(u, y - 0.06, 0.85, 0.05))
    hearth = colour(0.55, 0.50, 0.47) * light * (1.2 - (y - base - 0.07) * 1.5).clamp(0.3, 1.2)
    return mix(picture, hearth, smoothstep(base + 0.065, base + 0.08, y))
