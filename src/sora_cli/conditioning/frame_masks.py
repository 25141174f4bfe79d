"""Masks of latent frames in training: which frames are given, and which are noised and learned.

A mask is True for frames that are noised and count in the loss, False for given ones, which stay clean. Each kind is a
way to give frames; a run names the chance of each (training.md section 9, Open-Sora 1.1 and 1.2).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sora_cli.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

KINDS = (
    "identity",
    "quarter_random",
    "quarter_head",
    "quarter_tail",
    "quarter_head_tail",
    "image_random",
    "image_head",
    "image_tail",
    "image_head_tail",
    "random",
    "intepolate",  # spelt as in the released configurations
)
#: Names of earlier configurations.
ALIASES = {"interpolate": "intepolate", "mask_no": "identity"} | {
    f"mask_{old}": new
    for end in ("random", "head", "tail", "head_tail")
    for old, new in ((end, f"quarter_{end}"), (f"quarter_{end}", f"quarter_{end}"), (f"image_{end}", f"image_{end}"))
}
#: Chances must sum to 1 within this.
SUM_TOLERANCE = 1e-6
#: Least and greatest share of frames that "random" gives, on average.
RANDOM_RATIO = (0.1, 0.9)


class MaskRatios:
    """The chance of each kind of mask, in order."""

    def __init__(self, ratios: Mapping[str, float]) -> None:
        """ratios: kind -> probability; what is missing from 1 is added to the end as "identity".

        Raises UsageError for an unknown kind, one that is named twice, and chances that are none or sum to more than 1.
        """
        self.ratios: list[tuple[str, float]] = []
        for name, ratio in ratios.items():
            kind = ALIASES.get(name, name)
            if kind not in KINDS:
                raise unknown_name("mask", name, (*KINDS, *ALIASES), see="mask_ratios")
            if kind in dict(self.ratios):
                raise UsageError(f"mask_ratios: {kind} is there twice, once as {name}")
            if not isinstance(ratio, int | float) or isinstance(ratio, bool) or not 0 <= ratio <= 1:
                raise UsageError(f"mask_ratios.{name}: {ratio!r} is not a probability from 0 to 1")
            self.ratios.append((kind, float(ratio)))
        total = sum(ratio for _, ratio in self.ratios)
        if total > 1 + SUM_TOLERANCE:
            raise UsageError(f"mask_ratios: the probabilities sum to {total:g}, more than 1")
        if total < 1 - SUM_TOLERANCE:
            self.ratios.append(("identity", 1 - total))

    def kind(self, uniform: float) -> str:
        """The kind that a uniform number in [0, 1) picks: the first whose running sum exceeds it."""
        running = 0.0
        for kind, ratio in self.ratios:
            running += ratio
            if uniform < running:
                return kind
        return "identity"

    def draw(self, num_frames: int, random: np.random.Generator) -> NDArray[np.bool_]:
        """The mask (num_frames,) of one sample."""
        return draw_mask(self.kind(random.random()), num_frames, random)


def draw_mask(kind: str, num_frames: int, random: np.random.Generator) -> NDArray[np.bool_]:
    """A mask (num_frames,) of one kind; num_frames: latent frames."""
    draws: dict[str, Any] = {}
    if num_frames > 1:
        if kind.startswith("quarter_"):
            draws["size"] = int(random.integers(1, max(1, num_frames // 4) + 1))
        elif kind.startswith("image_"):
            draws["size"] = 1
        if kind in ("quarter_random", "image_random"):
            draws["position"] = int(random.integers(0, num_frames - draws["size"] + 1))
        elif kind == "random":
            low, high = RANDOM_RATIO
            draws.update(ratio=low + (high - low) * random.random(), uniforms=random.random(num_frames))
        elif kind == "intepolate":
            draws["start"] = int(random.integers(0, 2))
    return frame_mask(kind, num_frames, **draws)


def frame_mask(
    kind: str,
    num_frames: int,
    *,
    size: int = 0,
    position: int = 0,
    start: int = 0,
    ratio: float = 0.0,
    uniforms: Sequence[float] | NDArray[np.float64] = (),
) -> NDArray[np.bool_]:
    """A mask (num_frames,) from what was drawn.

    size, position: of the run of given frames; start: first given frame of every second one; ratio, uniforms: a frame
    is noised where its number is above the ratio. A single frame is always noised, and so is the last one when
    otherwise none would be.
    """
    mask = np.ones(num_frames, bool)
    if num_frames <= 1:
        return mask
    if kind == "random":
        mask = np.asarray(uniforms) > ratio
    elif kind == "intepolate":
        mask[start::2] = False
    elif kind.endswith("_random"):
        mask[position : position + size] = False
    elif kind != "identity":
        if "head" in kind:
            mask[:size] = False
        if "tail" in kind:
            mask[num_frames - size :] = False
    if not mask.any():
        mask[-1] = True
    return mask
