"""The file of a clip, written while its frames come."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from sora_cli.video.io import open_video, write_image
from sora_cli.video.latents import to_frames
from sora_cli.video.seams import Seam
from sora_cli.video.shapes import Size

from .given import source_frames

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .plan import Clip, GeneratePlan

AddFrames: TypeAlias = "Callable[[NDArray[np.uint8]], None]"


@contextlib.contextmanager
def clip_file(plan: GeneratePlan, clip: Clip) -> Iterator[AddFrames]:
    """A function that takes the sampled frames of a clip, (T, H, W, 3) uint8, in their order.

    Afterwards the file is there, whole, with the videos that go on before and behind the frames; or, after an error,
    nothing is.
    """
    output = plan.config.output
    if plan.is_image:
        pieces: list[NDArray[np.uint8]] = []
        yield pieces.append
        picture = enlarged(np.concatenate(pieces), plan.shape.enlarged)[0]
        write_image(clip.path, picture, clip.settings, sidecar=output.sidecar)
        return
    with open_video(clip.path, plan.shape.save_fps, clip.settings, crf=output.crf, sidecar=output.sidecar) as add:
        extension = clip.given.extension
        if extension is None:
            yield lambda piece: add(enlarged(piece, plan.shape.enlarged))
            return

        seam = None if extension.is_backward else Seam(extension.new)

        def add_sources(*, is_backward: bool) -> None:
            height, width = plan.shape.written
            for video in extension.videos:
                if video.is_backward == is_backward:
                    for piece in source_frames(plan, video, size=plan.shape.enlarged):
                        frames = to_frames(piece[0])[:, :height, :width]
                        add(frames)
                        if seam and not is_backward:
                            seam.add_given(frames)

        place, end = 0, extension.start + extension.new

        def add_new(piece: NDArray[np.uint8]) -> None:
            nonlocal place
            first = extension.start - place
            if seam and 0 < first <= len(piece):
                seam.add_decoded(enlarged(piece[first - 1 : first], plan.shape.enlarged)[0])
            part = piece[max(0, first) : max(0, end - place)]
            place += len(piece)
            if len(part):
                frames = enlarged(part, plan.shape.enlarged)
                add(seam.lead(frames) if seam else frames)

        add_sources(is_backward=False)
        yield add_new
        add_sources(is_backward=True)


def enlarged(frames: NDArray[np.uint8], size: Size | None) -> NDArray[np.uint8]:
    """Frames (T, H, W, 3) in another size, bicubic; as they are without one."""
    if size is None:
        return frames
    from PIL import Image

    height, width = size
    pictures = (Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC) for frame in frames)
    return np.stack([np.asarray(picture) for picture in pictures])
