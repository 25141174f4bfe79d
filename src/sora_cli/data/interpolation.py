"""Frames between the frames of a clip, for footage of a low frame rate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from sora_cli.plugin.protocols import Interpolator


def interpolated(
    frames: Iterable[NDArray[np.uint8]], interpolator: Interpolator, doublings: int
) -> Iterator[NDArray[np.uint8]]:
    """2^doublings (m - 1) + 1 frames (H, W, 3) for m of them, which stay as they are; two are held at a time."""
    last: NDArray[np.uint8] | None = None
    for frame in frames:
        if last is not None:
            yield from interpolator.between(last, frame, doublings)
        yield frame
        last = frame


def interpolate_file(source: Path, target: Path, interpolator: Interpolator, doublings: int) -> int:
    """Write a video at 2^doublings times the rate that it has, without its sound; returns the number of frames.

    Odd sides are cropped by a pixel, which the format needs. Raises SoraError for what cannot be read or written.
    """
    from sora_cli.video.clips import open_clip
    from sora_cli.video.io import write_video

    with open_clip(source, multiple=2) as clip:
        pixels = (piece[0, :, 0].add(1).mul(127.5).round().byte().permute(1, 2, 0).numpy() for piece in clip.pieces(1))
        made = interpolated(pixels, interpolator, doublings)
        return write_video(target, (frame[None] for frame in made), clip.fps * 2**doublings)
