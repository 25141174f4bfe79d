"""Which way the camera moves, from points that are followed through a clip or from dense optical flow.

Content that moves to the left means a camera that pans right; content that moves down, one that tilts up. The labels
are those that released models know: static, pan_left, pan_right, tilt_up, tilt_down, zoom_in, zoom_out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

#: Points a side of the grid that is followed.
GRID = 10
#: The points of an edge that count: the middle four, so that corners and what moves in the middle do not.
EDGE = slice(3, 7)
#: Joins several labels of one clip.
JOIN = "+"
UNDETERMINED = "Undetermined"
STATIC, UNKNOWN = "static", "unknown"
#: (direction of the top edge or left edge, of the bottom edge or right edge) -> label.
ALONG = {
    ("left", "left"): "pan_right",
    ("right", "right"): "pan_left",
    ("down", "down"): "tilt_up",
    ("up", "up"): "tilt_down",
    ("static", "static"): STATIC,
}
TOP_BOTTOM = {**ALONG, ("up", "down"): "zoom_in", ("down", "up"): "zoom_out"}
LEFT_RIGHT = {**ALONG, ("left", "right"): "zoom_in", ("right", "left"): "zoom_out"}

#: Dense flow: a smaller median is no motion, in pixels; a zoom moves so large a share of pixels outwards or inwards.
STILL_PIXELS = 1.0
ZOOM_OUT_BELOW, ZOOM_IN_ABOVE = 0.4, 0.6


def point_grid(height: int, width: int, side: int = GRID) -> NDArray[np.float64]:
    """Points (side, side, 2), [row, column, (x, y)], in pixels of a picture of this size, nearly from edge to edge."""
    margin = width / 64
    x, y = np.meshgrid(np.linspace(margin, width - margin, side), np.linspace(margin, height - margin, side))
    return np.stack([x, y], axis=-1)


def label_tracks(
    start: NDArray[np.floating],
    end: NDArray[np.floating],
    *,
    height: int,
    width: int,
    threshold: float = 0.25,
    edge: slice = EDGE,
) -> list[str]:
    """The sorted labels of points (10, 10, 2) in the first and in the last frame, in pixels.

    threshold: how far an edge moves before it counts, in shares of the shorter side; edge: the points of each edge that
    count. Never empty: "Undetermined".
    """
    # Positions are whole pixels, cut off towards zero, as they were when released models were trained.
    moved = np.trunc(end).astype(np.int64) - np.trunc(start).astype(np.int64)
    limit = threshold * min(height, width)
    edges = (moved[0, edge], moved[-1, edge], moved[edge, 0], moved[edge, -1])
    top, bottom, left, right = (_directions(points.mean(axis=0), limit) for points in edges)
    found = {TOP_BOTTOM.get(pair) for pair in product(top, bottom)}
    found |= {LEFT_RIGHT.get(pair) for pair in product(left, right)}
    labels = {label for label in found if label is not None}
    if len(labels) > 1:
        labels.discard(STATIC)
    return sorted(labels) or [UNDETERMINED]


def _directions(moved: NDArray[np.float64], limit: float) -> list[str]:
    """Where an edge went: at most one word for each axis, or "static"."""
    x, y = moved
    across = ["right"] if x > limit else ["left"] if x < -limit else []
    along = ["down"] if y > limit else ["up"] if y < -limit else []
    return [*across, *along] or [STATIC]


class FlowStatistics(NamedTuple):
    """Of a dense flow: median length in pixels, direction in degrees (0 right, 90 down), share that moves outwards."""

    magnitude: float
    angle: float
    outward: float


def flow_statistics(flow: NDArray[np.floating]) -> FlowStatistics:
    """Of flow (H, W, 2), x then y.

    The direction is that of the median vector: the median of directions is meaningless around the seam at 360 degrees.
    """
    x, y = flow[..., 0].astype(np.float64), flow[..., 1].astype(np.float64)
    angle = float(np.degrees(np.arctan2(np.median(y), np.median(x))) % 360)
    rows, columns = np.mgrid[: flow.shape[0], : flow.shape[1]]
    from_x, from_y = columns - flow.shape[1] / 2, rows - flow.shape[0] / 2
    before, after = np.hypot(from_x, from_y), np.hypot(from_x + x, from_y + y)
    return FlowStatistics(float(np.median(np.hypot(x, y))), angle, float(np.mean(after >= before)))


def label_flow(statistics: FlowStatistics) -> str:
    """The label of one pair of frames."""
    magnitude, angle, outward = statistics
    if magnitude < STILL_PIXELS:
        return STATIC
    if outward < ZOOM_OUT_BELOW:
        return "zoom_out"
    if outward > ZOOM_IN_ABOVE:
        return "zoom_in"
    return ("pan_left", "tilt_up", "pan_right", "tilt_down")[int((angle + 45) % 360 // 90)]


def label_pairs(labels: Sequence[str]) -> str:
    """The label of a clip: that of more than half of its pairs of frames, else what kind of mixture it is.

    "unknown" with still pairs or no pair at all, "pan/tilt" without a zoom, "dynamic" otherwise.
    """
    if not labels:
        return UNKNOWN
    [(label, count)] = Counter(labels).most_common(1)
    if 2 * count > len(labels):
        return label
    if STATIC in labels:
        return UNKNOWN
    return "dynamic" if any(label.startswith("zoom") for label in labels) else "pan/tilt"
