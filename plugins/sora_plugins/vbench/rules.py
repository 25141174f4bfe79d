"""The arithmetic of VBench's dimensions: from what networks find in frames to numbers.

Source: VBench 0.1.5 (Huang et al. 2024, arXiv 2311.17982), as far as its networks are left aside. Oddities are kept,
since they define the benchmark; each is said where it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, pairwise
from pathlib import PurePath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from sora_plugins.scorers.camera_motion import GRID, UNDETERMINED, label_tracks

Box = Sequence[float]

#: Frames a second at which motion is looked at, and the frames for which `MOVING_PAIRS` pairs have to move.
MOTION_FPS, MOTION_FRAMES, MOVING_PAIRS = 8, 16, 4
#: Pixels of motion that count, of a shorter side of `MOTION_SIDE`, and the share of all pixels that is looked at.
MOTION_PIXELS, MOTION_SIDE, FASTEST_SHARE = 6.0, 256.0, 0.05
#: The point along each edge whose motion is the camera's, and the motion that counts in shares of the shorter side.
EDGE_POINT, CAMERA_SHARE = slice(5, 6), 0.005
COLOURS = ["white", "red", "pink", "blue", "silver", "purple", "orange", "green", "gray", "yellow", "black", "grey"]
#: Boxes that overlap more than this lose in proportion.
MOST_OVERLAP = 0.1
#: Scores of an action below this do not count.
ACTION_SCORE = 0.85
QUALITY_SIDE = 512
RESIZES = ("longer", "shorter", "shorter_centercrop", "None")
#: What is said in a prompt -> the name of the motion.
CAMERA_WORDS = {
    "camera pans left": "pan_left",
    "camera pans right": "pan_right",
    "camera tilts up": "tilt_up",
    "camera tilts down": "tilt_down",
    "camera zooms in": "zoom_in",
    "camera zooms out": "zoom_out",
    "camera static": "static",
}


# -- differences of frames -----------------------------------------------------------------------------------------


def flicker_score(frames: Iterable[Tensor]) -> float:
    """1 for frames that are all equal, 0 for black beside white. frames: uint8, one by one, of one size.

    Raises ValueError for a single frame.
    """
    differences = [_difference(first, second) for first, second in pairwise(frames)]
    if not differences:
        raise ValueError("it has a single frame")
    return (255.0 - float(np.mean(differences))) / 255.0


def smoothness_score(original: Sequence[Tensor], interpolated: Sequence[Tensor]) -> float:
    """How close odd frames are to those made again from their neighbours.

    interpolated: every other frame of the original, from its first, with one made between each two. An odd frame at
    the end has no second neighbour and is left out. Raises ValueError for less than three frames.
    """
    odd = range(1, min(len(original), len(interpolated)), 2)
    if not odd:
        raise ValueError("it has less than three frames")
    return (255.0 - float(np.mean([_difference(original[i], interpolated[i]) for i in odd]))) / 255.0


def _difference(first: Tensor, second: Tensor) -> float:
    return float((first.float() - second.float()).abs().mean())


# -- features ------------------------------------------------------------------------------------------------------


def consistency_terms(features: Tensor) -> list[float]:
    """One number for every frame but the first: its mean likeness to the frame before and to the first one.

    features: (T, D). Raises ValueError for a single frame.
    """
    if len(features) < 2:
        raise ValueError("it has a single frame")
    unit = F.normalize(features.double(), dim=-1)
    before = (unit[1:] * unit[:-1]).sum(dim=-1).clamp(min=0)
    first = (unit[1:] @ unit[0]).clamp(min=0)
    found: list[float] = ((before + first) / 2).tolist()
    return found


def picture_score(picture: Tensor, features: Tensor) -> float:
    """How well a clip keeps to the picture that it starts from. picture: (D,) or (1, D); features: (T, D), T > 1."""
    if len(features) < 2:
        raise ValueError("it has a single frame")
    unit = F.normalize(features.double(), dim=-1)
    likeness = (unit @ F.normalize(picture.double().flatten(), dim=-1)).clamp(min=0)
    steps = (unit[1:] * unit[:-1]).sum(dim=-1).clamp(min=0)
    return float(0.4 * likeness.max() + 0.3 * steps.mean() + 0.3 * steps.min())


# -- motion --------------------------------------------------------------------------------------------------------


def frame_step(fps: float) -> int:
    """Every how many frames motion is looked at."""
    return max(1, round(fps / MOTION_FPS))


def moving_pairs_needed(num_frames: int) -> int:
    """How many pairs have to move, of so many frames that are looked at; halves are rounded to even."""
    return round(MOVING_PAIRS * num_frames / MOTION_FRAMES)


def motion_threshold(height: int, width: int) -> float:
    """Pixels between two frames that count as motion."""
    return MOTION_PIXELS * min(height, width) / MOTION_SIDE


def fastest_mean(flow: Tensor) -> float:
    """Mean length of the longest 5 % of the vectors of a flow (2, H, W)."""
    lengths = flow.float().square().sum(dim=0).sqrt().flatten()
    return float(lengths.topk(int(FASTEST_SHARE * lengths.numel())).values.mean())


def is_moving(speeds: Iterable[float], *, num_frames: int, height: int, width: int) -> bool:
    """Whether a clip moves. speeds: `fastest_mean` of neighbouring frames; they are asked for until it is known.

    num_frames: that are looked at. When no pair is needed (one or two frames), the first pair is enough, moving or not.
    """
    needed, threshold, found = moving_pairs_needed(num_frames), motion_threshold(height, width), 0
    for speed in speeds:
        found += speed > threshold
        if found >= needed:
            return True
    return False


def camera_motions(first: NDArray[np.floating], last: NDArray[np.floating], side: int) -> list[str]:
    """The sorted motions of the camera, of a grid of points (100, 2) in the first and the last frame.

    side: the shorter one. One point of each edge counts, which is off its middle, so that a plain zoom usually
    also pans and tilts, and is counted as all of these.
    """
    start, end = (points.reshape(GRID, GRID, 2) for points in (first, last))
    found = label_tracks(start, end, height=side, width=side, threshold=CAMERA_SHARE, edge=EDGE_POINT)
    return [motion for motion in found if motion != UNDETERMINED]


def camera_motion_of(name: str) -> str:
    """The motion that the name of a file asks for. Raises ValueError for one that asks for none."""
    for words, motion in CAMERA_WORDS.items():
        if words in name:
            return motion
    raise ValueError(f"{name} names no motion of the camera")


# -- what is seen --------------------------------------------------------------------------------------------------


def object_hits(wanted: str, frames: Iterable[Iterable[str]]) -> int:
    """In how many frames everything wanted is seen; several objects are joined with " and "."""
    words = set(wanted.split(" and "))
    return sum(words <= set(seen) for seen in frames)


class ColourCount(NamedTuple):
    """Frames with the object in any colour, and of those with the right one."""

    coloured: int
    right: int


def object_word(prompt: str, colour: str) -> str:
    """The object of a prompt such as "a red bicycle"."""
    return prompt.replace("a ", "").replace("an ", "").replace(colour, "").strip()


def colour_count(colour: str, word: str, frames: Iterable[Iterable[tuple[str, str]]]) -> ColourCount:
    """Frames whose captions of an object name a colour. frames: (caption, class) of each object of a frame."""
    coloured = right = 0
    for seen in frames:
        captions = [caption for caption, name in seen if name == word]
        coloured += any(each in caption for caption in captions for each in COLOURS)
        right += any(colour in caption for caption in captions)
    return ColourCount(coloured, right)


def scene_hits(wanted: str, captions: Iterable[str]) -> int:
    """In how many captions every word occurs, also inside other words."""
    return sum(all(word in caption for word in wanted.split()) for caption in captions)


def overlap(first: Box, second: Box) -> float:
    """Intersection over union of boxes (x0, y0, x1, y1)."""
    width = max(0.0, min(first[2], second[2]) - max(first[0], second[0]))
    height = max(0.0, min(first[3], second[3]) - max(first[1], second[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    union = sum(areas) - width * height
    return width * height / union if union else 0.0


def position_score(relation: str, first: Box, second: Box) -> float:
    """How clearly two boxes are beside or above each other.

    As in VBench it does not matter which is on which side: "on the left of" and "on the right of" are the same.
    """
    across = abs((first[0] + first[2]) - (second[0] + second[2]))
    down = abs((first[1] + first[3]) - (second[1] + second[3]))
    if "left" in relation or "right" in relation:
        is_apart = across > down
    else:
        is_apart = down > across
    if not is_apart:
        return 0.0
    shared = overlap(first, second)
    return 1.0 if shared < MOST_OVERLAP else MOST_OVERLAP / shared


def relation_score(wanted: Mapping[str, str], seen: Iterable[tuple[str, Box]]) -> float:
    """The best score of two boxes in a frame. wanted: object_a, object_b, relationship; seen: (class, box).

    As in VBench two boxes of the same object count as well.
    """
    names = (wanted["object_a"], wanted["object_b"])
    boxes = [box for name, box in seen if name in names]
    return max((position_score(wanted["relationship"], *pair) for pair in combinations(boxes, 2)), default=0.0)


def action_of(path: str) -> str:
    """The action that a file is to show, by its name: behind "person is ", up to the first "-" or "_"."""
    name = PurePath(path).name.lower().split("-")[0]
    return name.split("person is ")[-1].split("_")[0]


def has_action(wanted: str, top: Iterable[tuple[str, float]]) -> bool:
    """Whether an action is among the five likeliest, with a score that counts. top: (label, score in [0, 1])."""
    return any(label == wanted and round(score, 4) >= ACTION_SCORE for label, score in top)


# -- sizes ---------------------------------------------------------------------------------------------------------


def quality_size(height: int, width: int, resize: str) -> tuple[int, int]:
    """(height, width) of frames whose quality is measured, before the middle is cut out. resize: of `RESIZES`."""
    side = max(height, width) if resize == "longer" else min(height, width)
    if resize == "None" or side <= QUALITY_SIDE:
        return height, width
    scale = QUALITY_SIDE / side
    return int(height * scale), int(width * scale)


def quality_crop(height: int, width: int, resize: str) -> tuple[int, int]:
    """(height, width) of the frames in the end: "shorter_centercrop" takes the middle of those made smaller."""
    fitted = quality_size(height, width, resize)
    is_cut = resize == "shorter_centercrop" and fitted != (height, width)
    return (QUALITY_SIDE, QUALITY_SIDE) if is_cut else fitted
