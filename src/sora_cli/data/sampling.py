"""Which frames of a clip are looked at: indices from the number of its frames, and from its rate where time counts.

Every rule gives what it was asked for, so that a short clip repeats frames instead of giving fewer.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

#: Points of the aesthetic score by how many frames it looks at.
AESTHETIC_POINTS = {1: (0.5,), 2: (0.25, 0.5), 3: (0.1, 0.5, 0.9)}
#: Points of the frames that a captioner is shown.
CAPTION_POINTS = {1: (0.5,), 2: (0.25, 0.75), 3: (0.1, 0.5, 0.9)}
MATCH_POINTS = (0.5,)
OCR_INDICES = (10,)
#: Optical flow is measured over ten frames, whatever the rate: released models were trained with scores of these.
FLOW_INDICES = (0, 10, 20, 30)


def at_points(num_frames: int, points: Sequence[float]) -> list[int]:
    """Frames at points of the clip, 0 its start and 1 its end."""
    return at_indices(num_frames, [int(point * num_frames) for point in points])


def at_indices(num_frames: int, indices: Sequence[int]) -> list[int]:
    """These frames; the last one for those that a shorter clip does not have."""
    _check(num_frames)
    return [min(index, num_frames - 1) for index in indices]


def evenly_spaced(num_frames: int, count: int) -> list[int]:
    """`count` frames with equal steps between them and half a step at the start; halves are rounded to even."""
    _check(num_frames)
    step = (num_frames - 1) / count
    return [int(step / 2) + round(step * index) for index in range(count)]


def middle_of_parts(num_frames: int, count: int) -> list[int]:
    """The middle of each of `count` equal parts. A clip with fewer frames has one part a frame, the last repeated."""
    _check(num_frames)
    parts = min(count, num_frames)
    bounds = np.linspace(0, num_frames, parts + 1).astype(int)
    middles = [int(first + last - 1) // 2 for first, last in itertools.pairwise(bounds)]
    return middles + middles[-1:] * (count - parts)


def every(num_frames: int, step: int) -> list[int]:
    """Frames 0, step, 2 * step and so on."""
    _check(num_frames)
    return list(range(0, num_frames, step))


def every_seconds(num_frames: int, fps: float, seconds: float, *, count: int | None = None) -> list[int]:
    """Frames 0, seconds, 2 * seconds and so on, the nearest of each; without a rate (fps 0) one after the other.

    count: exactly so many, the last frame repeated in a shorter clip; None: to the end of the clip.
    """
    step = max(seconds * fps, 1.0)
    if count is None:
        _check(num_frames)
        count = int((num_frames - 1) / step) + 1
    return at_indices(num_frames, [round(step * index) for index in range(count)])


def _check(num_frames: int) -> None:
    if num_frames < 1:
        raise ValueError(f"a clip of {num_frames} frames has none to look at")
