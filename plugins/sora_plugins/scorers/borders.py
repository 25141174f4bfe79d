"""Black borders: bars above and below, or at the sides, that are dark in every frame looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sora_cli.data.sampling import AESTHETIC_POINTS, at_points

from .quality import luma

if TYPE_CHECKING:
    import torch

    from sora_cli.plugin.protocols import ClipFrames, Scores

#: Luma that a line of a border stays below, except for a share of it: limited-range black with noise of the encoder.
DARK, STRAY = 24.0, 0.01
#: A picture whose brightest line is darker is a dark scene, which has no borders.
LEAST_BRIGHT = 40.0


def content_box(frames: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """(top, bottom, left, right) of what frames (N, H, W, 3) show inside black borders, if there are any."""
    bright = np.stack([luma(frame) for frame in frames])
    rows = np.quantile(bright, 1 - STRAY, axis=2).max(axis=0)
    columns = np.quantile(bright, 1 - STRAY, axis=1).max(axis=0)
    if rows.max() < LEAST_BRIGHT:
        return 0, len(rows), 0, len(columns)
    (top, bottom), (left, right) = (
        (int(inside[0]), int(inside[-1]) + 1) for inside in (np.flatnonzero(line >= DARK) for line in (rows, columns))
    )
    return top, bottom, left, right


class BorderScorer:
    """Column `border`: share of the picture, 0 to 1; `crop`: what is inside, width:height:x:y as ffmpeg writes it."""

    def frames(self, num_frames: int, fps: float) -> list[int]:
        """Three along the clip."""
        return at_points(num_frames, AESTHETIC_POINTS[3])

    def score(self, clips: Sequence[ClipFrames]) -> list[Scores]:
        """See the class."""
        return [self._one(clip.frames) for clip in clips]

    def _one(self, frames: NDArray[np.uint8]) -> Scores:
        top, bottom, left, right = content_box(frames)
        height, width = frames.shape[1:3]
        inside = (bottom - top) * (right - left) / (height * width)
        return {"border": 1 - inside, "crop": f"{right - left}:{bottom - top}:{left}:{top}"}


def load(weights: Mapping[str, Any], device: torch.device, options: None = None) -> BorderScorer:
    """The scorer; nothing to load."""
    return BorderScorer()
