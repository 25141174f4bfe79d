"""City: a skyline with lit windows behind a street on which cars drive both ways."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from .canvas import Light, cell_random, colour, light_of, mix, sky, smoothstep
from .catalogue import SceneParams
from .renderer import Painter
from .shapes_objects import EDGE, band, box, clouds, dots, ellipse

#: lanes from far to near: (height of the wheels' foot, size of the car, direction, speed, salt)
LANES = ((0.815, 0.135, -1.0, 0.42, 1), (0.955, 0.180, 1.0, 0.55, 2))
WALLS = ((0.62, 0.36, 0.30), (0.74, 0.67, 0.55), (0.42, 0.52, 0.66), (0.60, 0.60, 0.62), (0.38, 0.48, 0.50))
CAR_COLOURS = (
    (0.85, 0.1, 0.1),
    (0.12, 0.3, 0.8),
    (0.98, 0.8, 0.1),
    (0.94, 0.94, 0.94),
    (0.1, 0.6, 0.35),
    (0.95, 0.5, 0.08),
)
STREET = 0.73


def make_painter(params: SceneParams) -> Painter:
    """A painter of one street; buildings and cars come from the seed."""
    rng = random.Random(params.seed)
    time, light = params.time_of_day, light_of(params.time_of_day)
    busy = params.attributes["traffic"] == "busy"
    salt = rng.randrange(1000)
    offset = rng.uniform(0, 1)
    lamps = {"night": 1.0, "sunset": 0.7}.get(time, 0.0)
    cover = {"day": 0.4, "overcast": 0.85, "sunset": 0.4}.get(time, 0.0)
    shifts = (rng.uniform(0, 1), rng.uniform(0, 1))

    def paint(x: Tensor, y: Tensor, t: float) -> Tensor:
        """The picture at scene time t."""
        picture = sky(light, y, STREET)
        if cover:
            picture = clouds(picture, light, x + 5 * offset, y, 0.05 * t, cover, STREET)
        else:
            picture = picture + dots(x[:1] / 0.16, y[:, :1] / 0.16, salt, 0.5, 0.06) * 0.8
            moon = ellipse(x - 1.2 * offset + 0.6, y - 0.12, 0.075, 0.075, 0.02)
            picture = mix(picture, colour(0.96, 0.95, 0.85), moon)
        picture = _buildings(picture, light, x, y, (0.26, 0.10, 0.42, 0.5), lamps * 0.45, salt)
        picture = _buildings(picture, light, x, y, (0.34, 0.24, 0.40, 0.0), lamps, salt + 50)
        picture = _street(picture, light, x, y, lamps)
        for lane, shift in zip(LANES, shifts, strict=True):
            picture = _cars(picture, light, x, y, t, lane, (0.62 if busy else 2.3, shift, lamps), salt)
        return picture

    return paint


def _buildings(
    picture: Tensor,
    light: Light,
    x: Tensor,
    y: Tensor,
    shape: tuple[float, float, float, float],
    lamps: float,
    salt: int,
) -> Tensor:
    """One row of houses of width `shape[0]`, their roofs between shape[1] and shape[1] + shape[2]."""
    pitch, top, spread, haze = shape
    rows = band(y, top - EDGE, STREET + 0.02)
    if rows.start == rows.stop:
        return picture
    x, y = x[rows], y[rows]
    row = x[:1]
    cell = (row / pitch).floor()
    zero = cell * 0
    inside = row - (cell + 0.5) * pitch
    roof = top + spread * cell_random(cell, zero, salt)
    size_x, size_y = 0.066, 0.078
    columns = 1.5 + (cell_random(cell, zero, salt + 1) < 0.6) * float(int(pitch / size_x - 3) > 1)  # of windows, half
    half = columns * size_x + 0.006
    wall = torch.tensor(WALLS)[(cell_random(cell, zero, salt + 2) * len(WALLS)).long()[0]].T[:, None]
    face = box(inside, y - (roof + 2.0), half, 2.0)
    wall = wall * light.surface * (1.0 - 0.18 * smoothstep(-pitch / 2, pitch / 2, inside))
    wall = mix(wall, light.haze, haze * (1 - 0.5 * (lamps > 0)))
    gx, gy = inside / size_x, (y - roof - 0.03) / size_y
    ix, iy = (gx + 0.5).floor(), gy.floor()
    pane = box(gx - ix, gy - iy - 0.5, 0.30, 0.32, 0.10) * (inside.abs() < half) * (gy > 0)
    chance = cell_random(ix + cell * 37, iy, salt + 3)
    dark_pane = mix(colour(0.22, 0.30, 0.40), light.sky_top, 0.35) * light.surface + 0.10 * light.sky_low
    lit_pane = mix(colour(1.0, 0.80, 0.36), colour(1.0, 0.95, 0.75), (chance * 3 - 1).clamp(0, 1))
    on = (chance < 0.62) * (1.0 if lamps > 0 else 0.0)
    glass = mix(dark_pane, mix(light.haze, lit_pane, lamps), on)
    wall = mix(wall, glass, pane)
    picture[:, rows] = mix(picture[:, rows], wall, face)
    return picture


def _street(picture: Tensor, light: Light, x: Tensor, y: Tensor, lamps: float) -> Tensor:
    """Pavement, asphalt and a dashed line between the lanes; street lamps at night."""
    rows = band(y, STREET - 0.01, 9.0)
    if rows.start < rows.stop:
        gx, gy = x[:1], y[rows, :1]
        ground = mix(colour(0.66, 0.64, 0.60), colour(0.26, 0.27, 0.30), smoothstep(0.765, 0.775, gy))
        dash = box((gx / 0.5 - (gx / 0.5).floor() - 0.5) * 0.5, gy - 0.868, 0.14, 0.010)
        ground = mix(ground, colour(0.95, 0.90, 0.70), dash)
        pool = torch.exp(-((((gx / 0.9 - (gx / 0.9).floor() - 0.5) * 0.9) / 0.3) ** 2)) * lamps
        shade = light.surface + colour(0.75, 0.52, 0.25) * pool * 0.7
        picture[:, rows] = mix(picture[:, rows], ground * shade, smoothstep(STREET - EDGE, STREET + EDGE, gy))
    row = x[:1]
    post_x = (row / 0.9 - (row / 0.9).floor() - 0.5) * 0.9
    post = box(post_x, y - 0.61, 0.010, 0.15)
    picture = mix(picture, colour(0.14, 0.15, 0.17) * (0.4 + 0.6 * light.surface), post)
    if lamps:
        squared = post_x**2 + (y - 0.45) ** 2
        picture = picture + colour(1.0, 0.75, 0.40) * (torch.exp(-squared / 0.012) * 0.55 * lamps)
    globe = colour(1.0, 0.93, 0.75) if lamps else colour(0.8, 0.8, 0.8)
    return mix(picture, globe, ellipse(post_x, y - 0.45, 0.035, 0.028))


def _cars(
    picture: Tensor,
    light: Light,
    x: Tensor,
    y: Tensor,
    t: float,
    lane: tuple[float, float, float, float, int],
    traffic: tuple[float, float, float],
    salt: int,
) -> Tensor:
    """The cars of one lane, one in each moving cell; `traffic` is spacing, shift and brightness of the lamps."""
    foot, size, direction, speed, number = lane
    spacing, shift, lamps = traffic
    spacing = spacing * size / 0.135
    rows = band(y, foot - 1.3 * size, foot + 0.35 * size)
    if rows.start == rows.stop:
        return picture
    place = (direction * x[:1] - speed * t) / spacing + shift
    cell = place.floor()
    u = (place - cell - 0.5) * spacing / size  # along the car, forward positive, in car heights
    v = (y[rows, :1] - foot) / size
    part = picture[:, rows]
    part = part * (1 - 0.6 * torch.exp(-((u / 1.2) ** 2 + ((v - 0.02) / 0.12) ** 2) * 1.5))
    index = (cell_random(cell[0], cell[0] * 0, salt + number) * len(CAR_COLOURS)).long()
    body = torch.tensor(CAR_COLOURS)[index].T[:, None]
    body = body * (light.surface * 0.7 + 0.3) * (1.08 - 0.35 * (v + 0.55))
    cabin = box(u + 0.08, v + 0.76, (0.62 + 0.55 * (v + 0.76)).clamp(0.3, 0.9), 0.24, 0.05)
    part = mix(part, body, cabin)
    glass = box(u + 0.08, v + 0.74, (0.52 + 0.55 * (v + 0.76)).clamp(0.2, 0.8), 0.15, 0.05) * ((u + 0.08).abs() > 0.05)
    part = mix(part, mix(colour(0.12, 0.16, 0.22), light.sky_low, 0.35), glass)
    part = mix(part, body, box(u, v + 0.36, 1.12 - 0.25 * (v + 0.36).clamp(-1, 0) ** 2, 0.22, 0.06))
    for side in (-0.62, 0.62):
        part = mix(part, colour(0.04, 0.04, 0.05), ellipse(u - side, v + 0.15, 0.21, 0.21, 0.06))
        part = mix(part, colour(0.55, 0.56, 0.60) * light.surface, ellipse(u - side, v + 0.15, 0.10, 0.10, 0.06))
    part = mix(part, colour(0.9, 0.08, 0.05), ellipse(u + 1.06, v + 0.42, 0.10, 0.10, 0.06))
    part = mix(part, colour(1.0, 0.96, 0.75), ellipse(u - 1.06, v + 0.42, 0.10, 0.10, 0.06))
    if lamps:
        tail = torch.exp(-(((u + 1.10) / 0.32) ** 2 + ((v + 0.42) / 0.28) ** 2))
        ahead = (u - 1.06).clamp(min=0)
        head = torch.exp(-(((u - 1.10) / 0.30) ** 2 + ((v + 0.42) / 0.28) ** 2))
        beam = torch.exp(-ahead / 0.5 - ((v + 0.30 - 0.12 * ahead) / (0.12 + 0.22 * ahead)) ** 2) * (u > 1.06)
        part = part + (colour(1.0, 0.10, 0.05) * tail + colour(1.0, 0.92, 0.65) * (head + 0.55 * beam)) * lamps
    picture[:, rows] = part
    return picture
