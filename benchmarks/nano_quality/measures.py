"""What is measured of clips (T, H, W, 3) uint8: camera, colours, flicker, edges of blocks, borders of pieces."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

Clip = NDArray[np.uint8]
Numbers = NDArray[np.float64]
#: Sides in pixels of the diffusion model's tokens, and frames of a latent after the first.
TOKEN_SIDE, LATENT_FRAMES = 32, 4
#: Frames between two pictures whose flow is measured, and the small pictures' edge that is left out.
STEP, EDGE = 4, 2


def grey(clip: Clip) -> Numbers:
    """(T, H, W) in [0, 1]."""
    return clip.astype(np.float64).mean(axis=3) / 255.0


def camera_motion(clip: Clip) -> dict[str, float]:
    """The optical flow of the whole picture, a shift and a growth, per second at 24 fps, over all of the clip.

    right, down: in picture heights; grow: how fast it grows from the middle, as a share. Least squares over the
    brightness equation (Lucas and Kanade 1981) of small, blurred pictures STEP apart: what moves is seen as a whole,
    and edges that stand still, as between blocks, hardly count.
    """
    small = _blurred(grey(clip))
    height, width = small.shape[1:]
    y, x = np.mgrid[:height, :width] - np.array([height - 1, width - 1]).reshape(2, 1, 1) / 2
    normal, right = np.zeros((3, 3)), np.zeros(3)
    for before, after in zip(small[:-STEP:2], small[STEP::2], strict=False):
        down_slope, right_slope = np.gradient((before + after) / 2)
        slopes = np.stack([right_slope, down_slope, right_slope * x + down_slope * y], axis=-1)
        inner = slopes[EDGE:-EDGE, EDGE:-EDGE].reshape(-1, 3)
        change = (after - before)[EDGE:-EDGE, EDGE:-EDGE].reshape(-1)
        normal += inner.T @ inner
        right -= inner.T @ change
    shift_right, shift_down, growth = np.linalg.lstsq(normal, right, rcond=None)[0] * 24.0 / STEP
    return {"right": float(shift_right) / height, "down": float(shift_down) / height, "grow": float(growth)}


def _blurred(frames: Numbers) -> Numbers:
    """A quarter of the size, then blurred with a deviation of about 1.5 pixels."""
    count, height, width = frames.shape
    cut = frames[:, : height // 4 * 4, : width // 4 * 4]
    small = cut.reshape(count, height // 4, 4, width // 4, 4).mean(axis=(2, 4))
    for axis in (1, 2):
        for _ in range(4):
            ends = [(0, 0)] * 3
            ends[axis] = (1, 1)
            padded = np.pad(small, ends, mode="edge")
            first, middle, last = (np.take(padded, np.arange(small.shape[axis]) + k, axis=axis) for k in range(3))
            small = (first + 2 * middle + last) / 4
    return small


#: Camera -> the part of `camera_motion` that shows it, and its sign: a camera that pans right moves the content left.
SIGNS = {
    "pan left": ("right", 1.0),
    "pan right": ("right", -1.0),
    "tilt up": ("down", 1.0),
    "tilt down": ("down", -1.0),
    "zoom in": ("grow", 1.0),
    "zoom out": ("grow", -1.0),
}
#: Less than this, in picture heights or shares a second, is standing still.
STILL = 0.02


def follows_camera(clip: Clip, camera: str) -> bool:
    """Whether the content moves as under that camera."""
    part, sign = SIGNS[camera]
    return camera_motion(clip)[part] * sign > STILL


def change(clip: Clip) -> float:
    """Mean difference between frames that follow each other, of grey in [0, 1]: how much moves, whichever way."""
    return float(np.abs(np.diff(grey(clip), axis=0)).mean())


def vertical_motion(clip: Clip) -> float:
    """How fast fine detail moves down, in picture heights a second, from picture to picture; negative is up.

    Of the strongest detail alone: what stands still in every frame is taken away first.
    """
    frames = grey(clip)
    moving = frames - np.median(frames, axis=0)
    strips = np.array_split(np.arange(frames.shape[2]), 8)
    found = []
    for before, after in itertools.pairwise(moving):
        for strip in strips:
            first, second = before[:, strip], after[:, strip]
            if first.std() < 0.01:
                continue
            scores = [_overlap(first, second, shift) for shift in range(-8, 9)]
            found.append((int(np.argmax(scores)) - 8, first.std()))
    if not found:
        return 0.0
    shifts, weights = np.array(found, dtype=float).T
    return float((shifts * weights).sum() / weights.sum()) * 24.0 / frames.shape[1]


def _overlap(first: Numbers, second: Numbers, shift: int) -> float:
    height = len(first)
    ours = first[max(0, -shift) : height - max(0, shift)]
    theirs = second[max(0, shift) : height - max(0, -shift)]
    return float((ours * theirs).mean())


def flicker(clip: Clip) -> float:
    """Mean second difference over time, of grey in [0, 1]."""
    frames = grey(clip)
    return float(np.abs(frames[2:] - 2 * frames[1:-1] + frames[:-2]).mean())


def edge_ratio(clip: Clip) -> float:
    """Steps across the borders of tokens over steps elsewhere, both directions."""
    frames = grey(clip)
    ratios = []
    for axis in (1, 2):
        steps = np.abs(np.diff(frames, axis=axis)).mean(axis=tuple(a for a in (0, 1, 2) if a != axis))
        is_border = (np.arange(1, len(steps) + 1) % TOKEN_SIDE) == 0
        ratios.append(steps[is_border].mean() / max(steps[~is_border].mean(), 1e-6))
    return float(np.mean(ratios))


def seam_ratio(clip: Clip) -> float:
    """Differences between frames of two latents over those within one."""
    frames = grey(clip)
    steps = np.abs(np.diff(frames, axis=0)).mean(axis=(1, 2))
    is_border = np.arange(len(steps)) % LATENT_FRAMES == 0  # after frame 0, 4, 8, ...
    return float(steps[is_border].mean() / max(steps[~is_border].mean(), 1e-6))


def frechet_distance(first: Numbers, second: Numbers, dimensions: int = 16) -> float:
    """Distance of two sets of features (N, D), as Gaussians in the main `dimensions` of the second set.

    Heusel et al. 2017, arXiv 1706.08500, with fewer dimensions, since the sets are small.
    """
    mean = second.mean(axis=0)
    _, _, axes = np.linalg.svd(second - mean, full_matrices=False)
    ours, theirs = ((part - mean) @ axes[:dimensions].T for part in (first, second))
    a, b = np.cov(ours.T), np.cov(theirs.T)
    # tr sqrt(a b) is the sum of the roots of the eigenvalues, which are real and not negative.
    roots = np.sqrt(np.clip(np.linalg.eigvals(a @ b).real, 0.0, None)).sum()
    return float(np.square(ours.mean(axis=0) - theirs.mean(axis=0)).sum() + np.trace(a) + np.trace(b) - 2.0 * roots)


def nearest(features: Numbers, training: Numbers) -> Numbers:
    """Distance of each row to the nearest training row."""
    squares = np.square(features).sum(1)[:, None] + np.square(training).sum(1) - 2 * features @ training.T
    return np.sqrt(np.clip(squares, 0.0, None)).min(axis=1)
