"""Static clips: how much of a clip shows the same as a moment before, as slide shows, titles and frozen films do."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sora_cli.data.sampling import evenly_spaced

from .pictures import Picture
from .quality import luma, resized

if TYPE_CHECKING:
    import torch

    from sora_cli.plugin.protocols import ClipFrames, Scores

#: Frames that are compared, each with the next.
FRAMES = 9
#: Frames are compared at this shorter side, where noise of film and codec is averaged away.
SIDE = 64
#: Two frames show the same when no larger share of their pixels differs by more than so much luma, of 255.
SHARE, NOISE = 0.002, 6.0


class StaticScorer:
    """Column `static`: share of the steps between frames, evenly spaced, in which nothing changes; 1 is a still."""

    def frames(self, num_frames: int, fps: float) -> list[int]:
        """As many as there are, at most 9."""
        return evenly_spaced(num_frames, FRAMES) if num_frames > FRAMES else list(range(num_frames))

    def score(self, clips: Sequence[ClipFrames]) -> list[Scores]:
        """None for a picture."""
        return [self._one(clip) for clip in clips]

    def _one(self, clip: ClipFrames) -> Scores:
        if clip.num_frames < 2:
            return {"static": None, "reason": "a single picture has no motion"}
        greys = [_small(frame) for frame in clip.frames]
        same = [shows_the_same(first, second) for first, second in itertools.pairwise(greys)]
        return {"static": sum(same) / len(same)}


def _small(frame: Picture) -> NDArray[np.float64]:
    return luma(resized(frame, SIDE))


def shows_the_same(first: NDArray[np.float64], second: NDArray[np.float64]) -> bool:
    """Whether two small pictures (H, W), luma in 0..255, differ by noise only."""
    return bool((np.abs(first - second) > NOISE).mean() <= SHARE)


def load(weights: Mapping[str, Any], device: torch.device, options: None = None) -> StaticScorer:
    """The scorer; nothing to load."""
    return StaticScorer()
