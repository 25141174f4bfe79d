"""What is measured of clips (T, H, W, 3) uint8: camera, colours, flicker, edges of blocks, borders of pieces."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Clip = NDArray[np.uint8]
Numbers = NDArray[np.float64]
#: Sides in pixels of the diffusion model's tokens, and frames of a latent after the first.
TOKEN_SIDE, LATENT_FRAMES = 32, 4
#: How a hue counts for its neighbours in a histogram.
BLUR = (0.1, 0.25, 0.3, 0.25, 0.1)
#: Frames between two pictures whose shift is measured.
STEP = 4


def grey(clip: Clip) -> Numbers:
    """(T, H, W) in [0, 1]."""
    return clip.astype(np.float64).mean(axis=3) / 255.0


def shift_between(first: Numbers, second: Numbers) -> tuple[float, float]:
    """How far the content moved, (down, right) in pixels, by phase correlation with a parabola through the peak."""
    window = np.outer(np.hanning(first.shape[0]), np.hanning(first.shape[1]))
    spectra = [np.fft.fft2((part - part.mean()) * window) for part in (first, second)]
    cross = spectra[1] * np.conj(spectra[0])
    surface = np.real(np.fft.ifft2(cross / (np.abs(cross) + 1e-9)))
    peak = np.unravel_index(int(surface.argmax()), surface.shape)
    found = []
    for axis, place in enumerate(peak):
        size = surface.shape[axis]
        around = [
            surface[tuple((place + d) % size if a == axis else p for a, p in enumerate(peak))] for d in (-1, 0, 1)
        ]
        bend = around[0] - 2 * around[1] + around[2]
        fine = 0.0 if bend >= 0 else 0.5 * (around[0] - around[2]) / bend
        found.append((place + fine + size / 2) % size - size / 2)
    return float(found[0]), float(found[1])


def camera_motion(clip: Clip) -> dict[str, float]:
    """Travel of the content between pictures STEP apart, in picture heights a second at 24 fps, median over places.

    right, down: of the picture as a whole; grow: how fast it grows from the middle, as a share a second.
    """
    frames = grey(clip)
    height, width = frames.shape[1:]
    side = height // 2
    tops = (0, height - side)
    lefts = (0, (width - side) // 2, width - side)
    rows = []
    for start in range(0, len(frames) - STEP, STEP):
        pair = frames[start], frames[start + STEP]
        for top in tops:
            for left in lefts:
                cut = [picture[top : top + side, left : left + side] for picture in pair]
                down, right = shift_between(*cut)
                rows.append((top + side / 2 - height / 2, left + side / 2 - width / 2, down, right))
    y, x, down, right = np.array(rows).T
    rate = 24.0 / STEP
    out = [d / p for d, p in zip((*down, *right), (*y, *x), strict=True) if abs(p) > side / 4]
    return {
        "right": float(np.median(right)) / height * rate,
        "down": float(np.median(down)) / height * rate,
        "grow": float(np.median(out)) * rate,
    }


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


def colour_histogram(clip: Clip, bins: int = 24) -> Numbers:
    """Square roots of the shares of hues, weighted by saturation and brightness, and of bright greys; (bins + 1,)."""
    pixels = clip[:: max(1, len(clip) // 6)].astype(np.float64).reshape(-1, 3) / 255.0
    most, least = pixels.max(axis=1), pixels.min(axis=1)
    spread = most - least
    red, green, blue = pixels.T
    with np.errstate(divide="ignore", invalid="ignore"):
        hue = np.select(
            [most == red, most == green],
            [(green - blue) / spread % 6, (blue - red) / spread + 2],
            (red - green) / spread + 4,
        )
    hue = np.nan_to_num(hue) / 6.0
    # What is bright and colourful counts most: flames, sparks and petals, not the ground.
    counts, _ = np.histogram(hue, bins=bins, range=(0.0, 1.0), weights=spread**2)
    # Neighbouring hues are nearly the same colour.
    counts = sum(weight * np.roll(counts, shift) for shift, weight in zip(range(-2, 3), BLUR, strict=True))
    bright = float(((least > 0.75) * 0.1).sum())
    shares = np.append(counts, bright)
    return np.sqrt(shares / max(shares.sum(), 1e-9))


class ColourJudge:
    """Names the colour of a scene by the nearest mean histogram of rendered clips."""

    def __init__(self, rendered: Mapping[str, Mapping[str, Sequence[Clip]]]) -> None:
        """rendered: scene -> colour -> clips."""
        self.means = {
            scene: {
                colour: np.mean([colour_histogram(clip) for clip in clips], axis=0) for colour, clips in each.items()
            }
            for scene, each in rendered.items()
        }

    def name(self, scene: str, clip: Clip, among: Sequence[str]) -> str:
        """The colour, of those that are asked for."""
        found = colour_histogram(clip)
        known = {colour: mean for colour, mean in self.means[scene].items() if colour in among}
        return min(known, key=lambda colour: float(np.square(known[colour] - found).sum()))


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
