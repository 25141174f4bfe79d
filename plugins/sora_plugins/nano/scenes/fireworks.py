"""Fireworks: a few big bursts of fat glowing sparks over a dark skyline or over a lake that mirrors them."""

from __future__ import annotations

import math
import random

import torch
from torch import Tensor

from .canvas import Rgb, cell_random, colour, mix, noise, smoothstep
from .catalogue import SceneParams
from .renderer import Painter
from .shapes_objects import EDGE, band, box, dots

HUES: dict[str, Rgb] = {
    "red": (1.0, 0.12, 0.08),
    "gold": (1.0, 0.72, 0.16),
    "blue": (0.15, 0.38, 1.0),
    "green": (0.12, 0.95, 0.22),
    "purple": (0.72, 0.18, 1.0),
}
WATER = 0.74
#: seconds from one burst of a launcher to its next; the rocket climbs in the last CLIMB of them.
PERIOD, CLIMB = 2.6, 0.5
#: the sky repeats to the sides at this distance, so that a moving camera always sees bursts.
REPEAT = 2.1
LAUNCHERS = 3


def make_painter(params: SceneParams) -> Painter:
    """A painter of one show; places, colours and backdrop come from the seed."""
    rng = random.Random(params.seed)
    name = params.attributes["colour"]
    lake = params.attributes["backdrop"] == "lake"
    salt = rng.randrange(1000)
    phase = rng.uniform(0, PERIOD)
    order = rng.sample((-0.52, 0.0, 0.52), LAUNCHERS)

    def burst(launcher: int, t: float) -> tuple[float, float, float, float, Tensor, float]:
        """Age, centre x, centre y, reach, colour and first angle of a launcher's burst at scene time t."""
        clock = (t + phase) / PERIOD + launcher / LAUNCHERS
        draw = random.Random(params.seed * 7919 + math.floor(clock) * 31 + launcher)
        hue = colour(*HUES[draw.choice(list(HUES)) if name == "mixed" else name])
        place = order[launcher] + draw.uniform(-0.10, 0.10), draw.uniform(0.24, 0.36)
        return (clock % 1.0) * PERIOD, *place, draw.uniform(0.26, 0.36), hue, draw.uniform(0, 1)

    def paint(x: Tensor, y: Tensor, t: float) -> Tensor:
        """The picture at scene time t."""
        level = y
        if lake:
            ripple = (noise(3, x * 0.35, y * 3.5 + 0.12 * t) - 0.5) * 0.5
            level = torch.where(y > WATER, WATER - (y - WATER) * (2.1 + ripple), y)  # flattened, so that all fits in
        picture = mix(colour(0.01, 0.012, 0.05), colour(0.07, 0.06, 0.17), smoothstep(-0.3, WATER, level))
        picture = picture + dots(x[:1] / 0.2, level / 0.2, salt, 0.4, 0.045) * 0.5
        for launcher in range(LAUNCHERS):
            picture = _burst(picture, x, level, burst(launcher, t))
        if lake:
            return _lake(picture, x, y, level, salt)
        return _skyline(picture, x, y, salt)

    return paint


def _burst(picture: Tensor, x: Tensor, y: Tensor, state: tuple[float, float, float, float, Tensor, float]) -> Tensor:
    """Adds one burst: a flash, two rings of sparks with tails that sink and fade, and the rocket before the next."""
    age, centre_x, centre_y, reach, hue, turn = state
    across = x[0] - centre_x
    across = across - REPEAT * ((across / REPEAT) + 0.5).floor()
    columns = (across.abs() < reach + 0.16).nonzero()[:, 0]
    if not len(columns):
        return picture
    dx, dy = across[columns][None], y[:, columns] - centre_y
    fade = smoothstep_number(PERIOD - 0.25, 1.0, age)
    light = hue * (torch.exp(-(dx * dx + dy * dy) / (reach * 0.8) ** 2) * 0.30 * fade * min(1.0, 8 * age))
    if age < 0.5:
        flash = torch.exp(-(dx * dx + dy * dy) / 0.008) * (1 - age / 0.5) ** 2 * 1.5
        light = light + mix(hue, colour(1, 1, 1), 0.7) * flash
    fall = dy - 0.045 * age * age
    distance = (dx * dx + fall * fall).sqrt()
    angle = torch.atan2(fall, dx) / (2 * math.pi) + turn
    front = reach * (1 - math.exp(-2.6 * age))
    for share, rays in ((1.0, 14), (0.55, 9)):
        ray = angle * rays
        off = (ray - ray.floor() - 0.5) * (2 * math.pi / rays) * distance
        behind = share * front - distance
        width = 0.019 + 0.010 * age
        tail = torch.exp(-behind.clamp(min=0) / (0.05 + 0.10 * front) - (behind.clamp(max=0) / 0.022) ** 2)
        spark = torch.exp(-((off / width) ** 2)) * tail
        head = torch.exp(-((off / 0.018) ** 2) - (behind / 0.022) ** 2)
        light = light + (hue * (1.5 * spark) + head * 0.9) * fade
    climb = age - (PERIOD - CLIMB)
    if climb > 0:
        rocket = centre_y + (WATER - centre_y) * (1 - climb / CLIMB) ** 2
        trail = torch.exp(-((dx / 0.02) ** 2)) * torch.exp(-(y[:, columns] - rocket).clamp(min=0) / 0.10)
        light = light + colour(1.2, 0.9, 0.5) * trail * (y[:, columns] > rocket - 0.01)
    picture[:, :, columns] = picture[:, :, columns] + light
    return picture


def smoothstep_number(low: float, high: float, value: float) -> float:
    """`smoothstep` of a plain number."""
    u = min(1.0, max(0.0, (value - low) / (high - low)))
    return u * u * (3 - 2 * u)


def _skyline(picture: Tensor, x: Tensor, y: Tensor, salt: int) -> Tensor:
    """Dark houses with big lit windows along the bottom."""
    rows = band(y, 0.55, 9.0)
    if rows.start == rows.stop:
        return picture
    x, y = x[rows], y[rows]
    cell = (x[:1] / 0.23).floor()
    inside = x[:1] - (cell + 0.5) * 0.23
    roof = 0.62 + 0.22 * cell_random(cell, cell * 0, salt)
    half = 0.062 * 1.5 + 0.008
    house = torch.maximum(box(inside, y - roof - 3, half, 3.0), smoothstep(0.87, 0.89, y))
    gx, gy = inside / 0.062, (y - roof - 0.03) / 0.072
    ix, iy = (gx + 0.5).floor(), gy.floor()
    pane = box(gx - ix, gy - iy - 0.5, 0.28, 0.30, 0.1) * (inside.abs() < half) * (gy > 0)
    lit = cell_random(ix + cell * 37, iy, salt + 2) < 0.55
    wall = mix(colour(0.03, 0.03, 0.07), colour(0.95, 0.72, 0.32), pane * lit)
    picture[:, rows] = mix(picture[:, rows], wall, house)
    return picture


def _lake(picture: Tensor, x: Tensor, y: Tensor, level: Tensor, salt: int) -> Tensor:
    """Dark far hills and their mirror image; the water dims what it mirrors."""
    row = x[:1]
    ridge = WATER - 0.03 - 0.12 * noise(7, row * 0.3 + 0.01 * salt, row * 0 + 0.2)
    picture = mix(picture, colour(0.015, 0.02, 0.05), smoothstep(-EDGE, EDGE, level - ridge))
    water = smoothstep(WATER - EDGE / 2, WATER + EDGE / 2, y)
    return mix(picture, picture * 0.62 + colour(0.01, 0.03, 0.08), water)
