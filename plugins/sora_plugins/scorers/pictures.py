"""Scores of single frames: what is measured on some frames of a clip, and combined for the clip."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sora_cli.data import sampling
from sora_cli.plugin.protocols import ClipFrames, Scores

#: An RGB picture, (H, W, 3) uint8.
Picture = NDArray[np.uint8]
#: Values of any number of pictures, of any sizes: column -> one number for each.
Measure = Callable[[Sequence[Picture]], Mapping[str, Sequence[float]]]

#: Pictures that are brought to one size have at most so many shorter sides along the longer one, or a strip of a few
#: pixels would become a picture of gigabytes.
LONGEST = 8


def scale_to(side: int, height: int, width: int) -> float:
    """What makes the shorter side of a picture `side` pixels long; less for strips."""
    return min(side / min(height, width), LONGEST * side / max(height, width))


class PictureScorer:
    """Measures 1 to 3 frames at the points of the aesthetic score. combine: the values of a clip, by mean or max."""

    def __init__(
        self, measure: Measure, *, count: int = 3, combine: Callable[[NDArray[np.float64]], float] = np.mean
    ) -> None:
        self.measure, self.points, self.combine = measure, sampling.AESTHETIC_POINTS[count], combine

    def frames(self, num_frames: int, fps: float) -> list[int]:
        """The frames at the points; a picture is looked at once."""
        return sampling.at_points(num_frames, self.points) if num_frames > 1 else [0]

    def score(self, clips: Sequence[ClipFrames]) -> list[Scores]:
        """All pictures of all clips are measured in one call."""
        columns = self.measure([picture for clip in clips for picture in clip.frames])
        ends = np.cumsum([len(clip.frames) for clip in clips])
        parts = {
            column: np.split(np.asarray(values, dtype=np.float64), ends[:-1]) for column, values in columns.items()
        }
        return [{column: float(self.combine(values[i])) for column, values in parts.items()} for i in range(len(clips))]
