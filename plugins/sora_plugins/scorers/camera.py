"""Camera motion of clips with OpenCV: following points, or dense flow between samples."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from sora_cli.data import sampling
from sora_cli.plugin.protocols import ClipFrames, Scores

from .camera_motion import JOIN, flow_statistics, label_flow, label_pairs, label_tracks, point_grid
from .opencv_flow import grey
from .options import CameraOptions
from .pictures import scale_to

if TYPE_CHECKING:
    import torch

    from sora_cli.weights.locate import LocatedWeights

Grey = NDArray[np.uint8]
Points = NDArray[np.float32]

#: Points are followed from sample to sample, so far apart, on pictures with the shorter side at most so long.
SECONDS, SIDE = 0.25, 240
#: The most samples of a clip; those of longer clips are further apart.
MOST_SAMPLES = 32
#: A point that is followed there and back has to come back so near, in pixels of the small pictures, and points that
#: move together agree so well.
WITHIN = 2.0
WINDOW, LEVELS = (21, 21), 4
#: Points a side that tell how the whole picture moves; below so many of them, or with so small a share of those that
#: were followed agreeing, it is not known. The values name the motion of 41 of 42 rendered clips, water among them.
WHOLE_GRID = 20
LEAST_POINTS, LEAST_AGREEING = 20, 0.2
#: Of the rule with dense flow: every so many frames.
FLOW_STEP = 15
#: Its pictures have the shorter side at this, since a motion counts from one pixel on.
FLOW_SIDE = 240


class TrackScorer:
    """Column `cmotion`: labels by points on a grid that are followed from the first frame to the last."""

    def __init__(self, threshold: float = 0.25) -> None:
        self.threshold = threshold

    def frames(self, num_frames: int, fps: float) -> list[int]:
        """Samples a quarter of a second apart, the first and the last frame among them."""
        count = len(sampling.every_seconds(num_frames, fps, SECONDS))
        wanted = np.linspace(0, num_frames - 1, min(max(count, 2), MOST_SAMPLES))
        return sorted({round(index) for index in wanted.tolist()})

    def score(self, clips: Sequence[ClipFrames]) -> list[Scores]:
        """None for pictures, and where nothing can be followed."""
        return [self._score(clip) for clip in clips]

    def _score(self, clip: ClipFrames) -> Scores:
        if len(clip.frames) < 2:
            return {"cmotion": None, "reason": "a single picture has no motion"}
        height, width = clip.frames.shape[1:3]
        start = point_grid(height, width)
        scale = min(1.0, scale_to(SIDE, height, width))
        end = follow([small_grey(frame, scale) for frame in clip.frames], (start * scale).astype(np.float32))
        if end is None:
            return {"cmotion": None, "reason": "its picture cannot be followed from the first frame to the last"}
        labels = label_tracks(start, end / scale, height=height, width=width, threshold=self.threshold)
        return {"cmotion": JOIN.join(labels)}


class DenseScorer:
    """Column `cmotion`: one label by dense flow between samples 15 frames apart."""

    def frames(self, num_frames: int, fps: float) -> list[int]:
        """Frames 0, 15, 30 and so on; of long clips fewer."""
        return sampling.every(num_frames, FLOW_STEP * max(1, -(-num_frames // (FLOW_STEP * MOST_SAMPLES))))

    def score(self, clips: Sequence[ClipFrames]) -> list[Scores]:
        """None for clips with one sample."""
        return [self._score(clip) for clip in clips]

    def _score(self, clip: ClipFrames) -> Scores:
        if len(clip.frames) < 2:
            return {"cmotion": None, "reason": f"it has fewer than {FLOW_STEP + 1} frames"}
        scale = scale_to(FLOW_SIDE, *clip.frames.shape[1:3])
        return {"cmotion": label_greys([small_grey(frame, scale) for frame in clip.frames])}


def label_greys(greys: Sequence[Grey]) -> str:
    """The label of samples (H, W) of a clip, each compared with the one before."""
    pairs = itertools.pairwise(greys)
    return label_pairs([label_flow(flow_statistics(farneback(*pair))) for pair in pairs])


def farneback(first: Grey, second: Grey) -> NDArray[np.float32]:
    """Flow (H, W, 2) by polynomial expansion (Farnebäck 2003), with the parameters that the labels were made with."""
    flow = cv2.calcOpticalFlowFarneback(first, second, None, 0.5, 3, 15, 3, 5, 1.2, 0)  # type: ignore[call-overload]
    return np.asarray(flow, dtype=np.float32)


def small_grey(frame: NDArray[np.uint8], scale: float) -> Grey:
    """(h, w) of an RGB picture, smaller or larger by `scale`."""
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    found = grey(frame)
    return found if scale == 1 else np.asarray(cv2.resize(found, None, fx=scale, fy=scale, interpolation=how))


def follow(greys: Sequence[Grey], points: Points) -> Points | None:
    """Where points (n, n, 2) of the first picture are in the last one; None where it cannot be said.

    From one picture to the next, points that can be followed there and back are; the others, those that left the
    picture among them, move as most of a fresh grid does: turned, scaled and shifted.
    """
    places = points.reshape(-1, 2)
    for first, second in itertools.pairwise(greys):
        height, width = first.shape
        step = _whole_motion(first, second)
        if step is None:
            return None
        inside = ((places >= 0) & (places < (width, height))).all(axis=1)
        moved, is_followed = _followed(first, second, places)
        carried = places @ step[:, :2].T + step[:, 2]
        places = np.where((inside & is_followed)[:, None], moved, carried).astype(np.float32)
    return places.reshape(points.shape)


def _followed(first: Grey, second: Grey, points: Points) -> tuple[Points, NDArray[np.bool_]]:
    """Where points (n, 2) went, and which of them come back when they are followed back."""
    moved, found, _ = cv2.calcOpticalFlowPyrLK(first, second, points, None, winSize=WINDOW, maxLevel=LEVELS)  # type: ignore[call-overload]
    back, found_back, _ = cv2.calcOpticalFlowPyrLK(second, first, moved, None, winSize=WINDOW, maxLevel=LEVELS)  # type: ignore[call-overload]
    returns = np.linalg.norm(back - points, axis=1) < WITHIN
    return moved, returns & found.ravel().astype(bool) & found_back.ravel().astype(bool)


def _whole_motion(first: Grey, second: Grey) -> NDArray[np.float64] | None:
    """The similarity (2, 3) that most points of a grid move by, None where too few tell."""
    height, width = first.shape
    grid = point_grid(height, width, WHOLE_GRID).reshape(-1, 2).astype(np.float32)
    moved, is_followed = _followed(first, second, grid)
    if is_followed.sum() < LEAST_POINTS:
        return None
    cv2.setRNGSeed(0)  # its random draws would else depend on what ran before
    step, agreeing = cv2.estimateAffinePartial2D(
        grid[is_followed], moved[is_followed], method=cv2.RANSAC, ransacReprojThreshold=WITHIN
    )
    if step is None or agreeing.sum() < max(LEAST_POINTS, LEAST_AGREEING * is_followed.sum()):
        return None
    return np.asarray(step, dtype=np.float64)


def load_tracks(
    weights: Mapping[str, LocatedWeights], device: torch.device, options: CameraOptions | None = None
) -> TrackScorer:
    """Labels by points."""
    return TrackScorer((options or CameraOptions()).threshold)


def load_dense(weights: Mapping[str, LocatedWeights], device: torch.device, options: None = None) -> DenseScorer:
    """Labels by dense flow."""
    return DenseScorer()
