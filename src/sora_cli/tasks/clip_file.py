"""The file of a clip, written while its frames come."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from sora_cli.plugin.blame import wrong_result
from sora_cli.video.io import open_video, write_image
from sora_cli.video.latents import to_frames
from sora_cli.video.seams import FADE, LOOKED_AT, Seam, lead_to

from .given import source_frames
from .output import check_outputs, output_state

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sora_cli.conditioning.references import Extension
    from sora_cli.plugin.protocols import Upscaler

    from .plan import Clip, GeneratePlan

AddFrames: TypeAlias = "Callable[[NDArray[np.uint8]], None]"
Enlarge: TypeAlias = "Callable[[NDArray[np.uint8]], NDArray[np.uint8]]"


@contextlib.contextmanager
def clip_file(plan: GeneratePlan, clip: Clip, upscaler: Upscaler | None) -> Iterator[AddFrames]:
    """A function that takes the sampled frames of a clip, (T, H, W, 3) uint8, in their order.

    upscaler: enlarges them; None where they are written as they are.

    Afterwards the file is there, whole, with the videos that go on before and behind the frames; or, after an error,
    nothing is.
    """
    output, size = plan.config.output, plan.shape.enlarged
    # Another process may have made it meanwhile.
    check_outputs({clip.path: output_state(clip.path, clip.settings_hash)}, overwrite=output.overwrite)

    def enlarged(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if upscaler is None or size is None:
            return frames
        larger = upscaler(frames, size)
        wanted = (len(frames), size.height, size.width, 3)
        if getattr(larger, "shape", None) != wanted or larger.dtype != np.uint8:
            assert plan.components.upscaler is not None  # it is what was loaded
            gave = f"{getattr(larger, 'dtype', type(larger).__name__)} {getattr(larger, 'shape', '')}"
            raise wrong_result(plan.components.upscaler, f"gave frames of {gave}, not uint8 {wanted}")
        return larger

    if plan.is_image:
        pieces: list[NDArray[np.uint8]] = []
        yield pieces.append
        picture = enlarged(np.concatenate(pieces))[0]
        write_image(clip.path, picture, clip.settings, sidecar=output.sidecar)
        return
    with open_video(clip.path, plan.shape.save_fps, clip.settings, crf=output.crf, sidecar=output.sidecar) as add:
        extension = clip.given.extension
        if extension is None:
            yield lambda piece: add(enlarged(piece))
            return

        joined = _Joined(plan, extension, add, enlarged)
        yield joined.add_new
        joined.close()


class _Joined:
    """Writes new frames between videos, so that they meet without a step; see `video.seams`."""

    def __init__(self, plan: GeneratePlan, extension: Extension, add: AddFrames, enlarged: Enlarge) -> None:
        """Write the videos before the new frames. add: takes the frames of the file."""
        self.plan, self.extension, self.add, self.enlarged = plan, extension, add, enlarged
        self.after = [video for video in extension.videos if video.is_backward]
        self.place, self.end = 0, extension.start + extension.new
        #: The last new frames, which change when the video after them is known, and its first frame as decoded.
        self.held: list[NDArray[np.uint8]] = []
        self.decoded_after: NDArray[np.uint8] | None = None
        self.seam = None if extension.is_backward else Seam(extension.new)
        for video in extension.videos:
            if not video.is_backward:
                for frames in self._frames_of(video):
                    add(frames)
                    self.seam.add_given(frames)  # type: ignore[union-attr]  # a video that goes on is before

    def _frames_of(self, video: Extension) -> Iterator[NDArray[np.uint8]]:
        height, width = self.plan.shape.written
        for piece in source_frames(self.plan, video, size=self.plan.shape.enlarged):
            yield to_frames(piece[0])[:, :height, :width]

    def add_new(self, piece: NDArray[np.uint8]) -> None:
        """The next sampled frames: those of the videos, which are not written, and new ones."""
        first, last = self.extension.start - self.place, self.end - self.place
        if self.seam and 0 < first <= len(piece):
            self.seam.add_decoded(self.enlarged(piece[first - 1 : first])[0])
        if 0 <= last < len(piece):
            self.decoded_after = self.enlarged(piece[last : last + 1])[0]
        part = piece[max(0, first) : max(0, last)]
        self.place += len(piece)
        if len(part):
            frames = self.enlarged(part)
            self._write(self.seam.lead(frames) if self.seam else frames)

    def _write(self, frames: NDArray[np.uint8]) -> None:
        if not self.after:
            self.add(frames)
            return
        self.held.extend(frames)
        if ready := self.held[:-FADE]:
            self.add(np.stack(ready))
            del self.held[:-FADE]

    def close(self) -> None:
        """Write the videos after the new frames, and before them those that were held back."""
        for video in self.after:
            pieces = self._frames_of(video)
            first = [next(pieces)]
            while sum(map(len, first)) < LOOKED_AT and (more := next(pieces, None)) is not None:
                first.append(more)
            beginning = np.concatenate(first)
            assert self.decoded_after is not None  # the end of the sampled frames
            self.add(lead_to(np.stack(self.held), self.decoded_after, beginning))
            self.add(beginning)
            for frames in pieces:
                self.add(frames)
