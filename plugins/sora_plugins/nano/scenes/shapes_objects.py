"""Drawing helpers of the object scenes: picture bands, soft shapes, dots and drifting clouds."""

from __future__ import annotations

import torch
from torch import Tensor

from .canvas import Light, cell_random, colour, mix, noise, smoothstep

#: softness of edges in picture heights, about one pixel of a 144-line picture.
EDGE = 0.008


def band(y: Tensor, top: float, bottom: float) -> slice:
    """The rows of the picture that lie between two world heights; work on these only is much cheaper."""
    column = y[:, 0]
    return slice(int((column < top).sum()), int((column <= bottom).sum()))


def ellipse(x: Tensor, y: Tensor, rx: float, ry: float, soft: float = EDGE) -> Tensor:
    """Mask of an ellipse around the origin of x, y; `soft` is the width of its edge along the smaller radius."""
    distance = ((x / rx) ** 2 + (y / ry) ** 2).sqrt()
    share = soft / min(rx, ry)
    return smoothstep(1 + share, 1 - share, distance)


def box(x: Tensor, y: Tensor, half_width: Tensor | float, half_height: Tensor | float, soft: float = EDGE) -> Tensor:
    """Mask of a rectangle around the origin of x, y."""
    return smoothstep(soft, -soft, torch.maximum(x.abs() - half_width, y.abs() - half_height))


def capsule(x: Tensor, y: Tensor, start: tuple[float, float], end: tuple[float, float]) -> Tensor:
    """Distance to the line between two points: logs, poles and arms."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    along = (((x - start[0]) * dx + (y - start[1]) * dy) / (dx * dx + dy * dy)).clamp(0, 1)
    return ((x - start[0] - along * dx) ** 2 + (y - start[1] - along * dy) ** 2).sqrt()


def dots(gx: Tensor, gy: Tensor, salt: int, chance: float, radius: float, stretch: float = 1.0) -> Tensor:
    """A soft dot in a share `chance` of the unit cells of gx, gy; `radius` in cells, `stretch` is gx over gy scale."""
    ix, iy = gx.floor(), gy.floor()
    draw = cell_random(ix, iy, salt)  # one draw a cell is cheaper than three; place and presence are its digits
    cx = 0.25 + 0.5 * (draw * 61).frac()
    cy = 0.25 + 0.5 * (draw * 7).frac()
    squared = (gx - ix - cx) ** 2 + ((gy - iy - cy) * stretch) ** 2
    return torch.exp(squared * (-1 / radius**2)) * ((draw * 331).frac() < chance)


def clouds(picture: Tensor, light: Light, x: Tensor, y: Tensor, shift: float, cover: float, bottom: float) -> Tensor:
    """Draws soft heaps of cloud above `bottom` into the picture; `cover` 0 to 1, `shift` moves them to the right."""
    rows = band(y, -9.0, bottom)
    if rows.start == rows.stop:
        return picture
    x, y = x[rows], y[rows]
    u, v = (x - shift) * 0.28, y * 0.62
    body = noise(6, u, v) * 0.65 + noise(3, u * 1.6, v * 1.6) * 0.35
    above = noise(6, u - 0.01, v - 0.05)  # thick cloud towards the light shades what is below it
    mask = smoothstep(0.68 - 0.4 * cover, 0.84 - 0.4 * cover, body)
    shade = smoothstep(-0.14, 0.14, body - above)
    bright = mix(mix(light.sky_low, light.sun, 0.75), colour(1, 1, 1), 0.25)
    dark = mix(light.sky_low, light.sky_top, 0.35)
    picture[:, rows] = mix(picture[:, rows], mix(dark, bright, shade), mask)
    return picture


def pine(x: Tensor, y: Tensor, tiers: float = 5.0) -> Tensor:
    """Mask of a pine silhouette: top at y = 0, foot at y = 1, half width about 0.25."""
    step = (y * tiers) - (y * tiers).floor()
    half = 0.2 * y + 0.07 * step
    return smoothstep(0.02, -0.02, x.abs() - half) * (y > 0)
