"""The noise that nano starts from: a part of it moves with the camera, and the faster the clip, the smaller that is.

A caption's few words about motion change little in what a small network is taught, because at most noise levels the
noisy clip shows the motion already; it learned to move the right way from them, but slowly. So the motion is put where
the network does look: noise whose shared part is a picture of the world, seen by the moving camera, and frames that
have the less in common the more happens between them. Sources: Burgert et al. 2025, arXiv 2501.08331 (noise that is
warped by the motion), Ge et al. 2023, arXiv 2305.10474 (noise that frames have in common).
"""

from __future__ import annotations

import math
import re

import torch
from torch import Tensor

from .scenes.captions import SPEED_SCORE, TRAVEL_SCORE
from .scenes.catalogue import CAMERAS

#: Share of the variance that frames of a clip at normal speed have in common; at speed s it is this to the power of s.
SHARED = 0.35
#: Speeds beyond these make no further difference to the noise; renders have 0.55 to 1.8.
SPEED_LIMITS = (0.4, 2.2)
#: How many times the speed that a prompt asks for is told by the noise. With 1 nano's clips have too little detail that
#: changes: 2.27 times the autoencoder's Frechet distance in `benchmarks/nano_quality`, with 1.4 1.96, with 1.6 1.87.
EMPHASIS = 1.6
#: What "slow" and "fast" mean, times the normal speed: the middle of such renders.
SLOW, FAST = 0.67, 1.5
#: Cells of the world's noise per side of a latent position: motion smaller than a cell is not seen.
CELLS = 4
#: Travel in two seconds that is meant when a prompt names a camera motion, in picture heights (log scale for zoom).
USUAL_AMPLITUDE = 0.65
#: A zoom further than this is left to the network: fewer cells than positions would be seen.
ZOOM_LIMITS = (0.4, 2.5)

_HOW = r"(?:(?:slowly|quickly|gently|smoothly|gradually|slightly|steadily) )*"
_WHO = rf"\b(?:camera|view|shot|viewpoint) {_HOW}"
_START = rf"(?:^|[.,:] ?){_HOW}"
_PAN = "pan|pans|panning|panned", "moves?|moving|turns?|turning|slides?|sliding|goes|going|swings?|drifts?|sweeps?"
_TILT = "tilt|tilts|tilting|tilted", "moves?|moving|looks?|looking|goes|going|turns?|turning|rises?|swings?"
_NEARER = (
    rf"zoom(?:s|ing)?[ -]{_HOW}in(?:to)?|push(?:es|ing)? in|dolly(?:ing)? in",
    "moves? (?:in|closer|nearer|forwards?)|(?:comes?|gets?) (?:closer|nearer)",
    "moving (?:in|closer|nearer|forwards?)",
)
_FARTHER = (
    rf"zoom(?:s|ing)?[ -]{_HOW}out|pull(?:s|ing)? (?:back|out|away)|dolly(?:ing)? (?:out|back)",
    "moves? (?:out|back|away|backwards?)|gets? (?:farther|further) away",
    "moving (?:out|back|away|backwards?)",
)


def _turn(words: tuple[str, str], way: str) -> re.Pattern[str]:
    """A camera that turns: "pans left", "the view moves to the left", "leftward pan", "..., turning left"."""
    noun, verbs = words
    # "looking up at the sky" says what is seen, not what the camera does.
    after = rf"{_HOW}(?:(?:to|towards?) the )?{way}(?:wards?)?\b(?! at\b)"
    loose = rf"{_START}(?:moving|turning|looking) {after}"
    return re.compile(rf"\b(?:{noun}) {after}|{_WHO}(?:{verbs}) {after}|\b{way}(?:ward)? (?:{noun})\b|{loose}")


def _step(words: tuple[str, str, str]) -> re.Pattern[str]:
    """A camera that comes nearer or goes away: "zoom in", "the camera pulls back", "..., moving closer"."""
    phrases, verbs, loose = words
    return re.compile(rf"\b(?:{phrases})\b|{_WHO}(?:{verbs})\b|{_START}(?:{loose})\b")


_SCORE = re.compile(r"motion score: (\d+(?:\.\d+)?)")
_SLOW = re.compile(r"\b(?:slow|slowly|slowed|low speed)\b")
_FAST = re.compile(r"\b(?:fast|faster|quick|quickly|rapid|rapidly|sped up|high speed|time[ -]?lapse|hyperlapse)\b")
_PATTERNS = {
    "pan left": _turn(_PAN, "left"),
    "pan right": _turn(_PAN, "right"),
    "tilt up": _turn(_TILT, "up"),
    "tilt down": _turn(_TILT, "down"),
    "zoom in": _step(_NEARER),
    "zoom out": _step(_FARTHER),
}


def camera_of(text: str) -> str:
    """The camera motion that a prompt names first, one of `CAMERAS`; "static" when it names none."""
    found = {camera: match.start() for camera, each in _PATTERNS.items() if (match := each.search(text.lower()))}
    return min(found, key=lambda camera: found[camera]) if found else "static"


def speed_of(text: str) -> float:
    """How fast a prompt wants things to move, times the normal speed: from its motion score, else from its words."""
    text = text.lower()
    if score := _SCORE.search(text):
        travel = USUAL_AMPLITUDE if camera_of(text) != "static" else 0.0
        speed = (float(score[1]) - TRAVEL_SCORE * travel) / SPEED_SCORE
        return min(max(speed, SPEED_LIMITS[0]), SPEED_LIMITS[1])
    # How fast the camera moves says nothing about what it shows.
    said = ". ".join(part for part in re.split("[.,;]", text) if "camera" not in part and camera_of(part) == "static")
    return SLOW if _SLOW.search(said) else FAST if _FAST.search(said) else 1.0


def moving_noise(
    noise: Tensor, camera: str, amplitude: float, *, speed: float = 1.0, fps: float, generator: torch.Generator
) -> Tensor:
    """Noise (C, T, h, w) whose shared part follows the camera; Gaussian with variance 1 like what it is made from.

    camera: one of `CAMERAS`; amplitude: its travel in two seconds, in picture heights (log scale for zoom), as the
    renderer's; speed: of what is shown, 1 is normal, which sets how much of the noise is shared. Two positions have in
    common what they see of the world: all of it without motion, less the further the camera has gone. A single frame
    is returned as it is.
    """
    _, frames, height, width = noise.shape
    if frames == 1:
        return noise
    rows, columns = [], []
    for frame in range(frames):
        zoom, right, down = _view(camera, amplitude, _seconds(frame, fps))
        rows.append(_edges(height, zoom, down * height))
        columns.append(_edges(width, zoom, right * height))
    top, left = min(map(min, rows)), min(map(min, columns))
    size = max(map(max, rows)) - top, max(map(max, columns)) - left
    world = torch.randn((len(noise), *size), generator=generator).double()
    # Sums over rectangles from sums over all that is above and to the left.
    sums = torch.nn.functional.pad(world, (1, 0, 1, 0)).cumsum(1).cumsum(2)
    shared = torch.stack([_seen(sums, rows[i], columns[i], top, left) for i in range(frames)], dim=1)
    share = SHARED**speed
    return math.sqrt(share) * shared.to(noise) + math.sqrt(1 - share) * noise


def _seconds(frame: int, fps: float) -> float:
    """The middle of what a latent frame shows: the first one frame, every later one four."""
    return 0.0 if frame == 0 else (4 * frame - 1.5) / fps


def _view(camera: str, amplitude: float, seconds: float) -> tuple[float, float, float]:
    """Zoom, and travel to the right and downward in picture heights: `scenes.canvas.camera_view`."""
    if camera not in CAMERAS:
        raise ValueError(f"unknown camera motion {camera!r}; known: {', '.join(CAMERAS)}")
    travel = amplitude * (seconds - 1.0) / 2.0
    sign = -1.0 if camera in ("pan left", "tilt up", "zoom in") else 1.0
    if camera.startswith("zoom"):
        return min(max(math.exp(sign * travel * 0.9), ZOOM_LIMITS[0]), ZOOM_LIMITS[1]), 0.0, 0.0
    return 1.0, sign * travel if camera.startswith("pan") else 0.0, sign * travel * 0.6 * camera.startswith("tilt")


def _edges(count: int, zoom: float, offset: float) -> list[int]:
    """The borders of `count` positions in cells of the world, from its middle."""
    return [round(((place - count / 2) * zoom + offset) * CELLS) for place in range(count + 1)]


def _seen(sums: Tensor, rows: list[int], columns: list[int], top: int, left: int) -> Tensor:
    """The mean of each position's cells, scaled to variance 1: (C, h, w). sums: (C, H + 1, W + 1)."""
    y, x = torch.tensor(rows) - top, torch.tensor(columns) - left
    corners = sums[:, y][:, :, x]
    total = corners[:, 1:, 1:] - corners[:, 1:, :-1] - corners[:, :-1, 1:] + corners[:, :-1, :-1]
    return total / (y.diff()[:, None] * x.diff()).sqrt()


def noise_for(noise: Tensor, text: str, *, fps: float, seed: int) -> Tensor:
    """`ModelSpec.noise`: the noise (C, T, h, w) that a clip of this prompt starts from. seed: of the shared part."""
    generator = torch.Generator("cpu").manual_seed(seed)
    # Clips that are trained on say how fast they are; see `sora_cli.training.captions.with_motion`.
    speed = speed_of(text) * (1.0 if text.startswith("measured motion score: ") else EMPHASIS)
    return moving_noise(noise, camera_of(text), USUAL_AMPLITUDE, speed=speed, fps=fps, generator=generator)
