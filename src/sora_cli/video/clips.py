"""Reading a whole video or picture piece by piece, upright, at its own rate or a constant one, fitted to a size."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sora_cli.console import get_console
from sora_cli.errors import SoraError, UsageError

from .pictures import Animation, open_pixels
from .shapes import parse_size

if TYPE_CHECKING:
    from sora_cli.training.clip_reader import Video

#: How far apart the times between frames may be, as a share of their mean, before the rate counts as variable.
VARIABLE = 0.25
#: How far apart two rates may be, as a share, before it is said.
SAME_RATE = 0.01


@dataclass(frozen=True)
class ClipFile:
    """An opened clip. num_frames, fps: of what `pieces` gives; height, width: after fitting."""

    path: Path
    num_frames: int
    fps: float
    height: int
    width: int
    _video: Video | None
    _picture: Tensor | None
    _numbers: Sequence[int]
    _source_size: tuple[int, int]
    _is_resized: bool

    def pieces(self, first: int, others: int | None = None) -> Iterator[Tensor]:
        """Consecutive frames (1, 3, T, H, W) float32 in [-1, 1]: `first` of them, then pieces of `others`.

        Raises SoraError when frames cannot be decoded.
        """
        from sora_cli.training.clip_reader import BadClipError

        size, waiting = first, list[Tensor]()
        try:
            for frame in self._frames():
                waiting.append(frame)
                if len(waiting) == size:
                    yield self._fit(torch.stack(waiting))
                    size, waiting = others or first, []
        except BadClipError as error:
            raise SoraError(f"{self.path}: {error}", hint="the file may be damaged; re-encode it") from error
        if waiting:
            yield self._fit(torch.stack(waiting))

    def only(self, first: int, count: int) -> ClipFile:
        """The same clip with these frames alone."""
        return self.picked(range(self.num_frames)[first : first + count])

    def picked(self, frames: Sequence[int]) -> ClipFile:
        """The same clip with frames of these numbers, which rise."""
        return replace(self, num_frames=len(frames), _numbers=[self._numbers[number] for number in frames])

    def _frames(self) -> Iterator[Tensor]:
        if self._picture is not None:
            yield self._picture
            return
        assert self._video is not None  # one or the other
        yield from self._video.stream(self._numbers)

    def _fit(self, frames: Tensor) -> Tensor:
        """(T, 3, H, W) uint8 -> (1, 3, T, H, W)."""
        from sora_cli.training.transforms import TRANSFORMS

        if self._is_resized:
            fitted = TRANSFORMS["resize_crop"][0](frames, (self.height, self.width))
        else:
            top, left = (
                (have - keep) // 2 for have, keep in zip(self._source_size, (self.height, self.width), strict=True)
            )
            cut = frames[:, :, top : top + self.height, left : left + self.width]
            fitted = cut.float() / 127.5 - 1.0
        return fitted.transpose(0, 1)[None]


@contextlib.contextmanager
def open_clip(
    path: Path,
    *,
    size: str | None = None,
    frames: int | None = None,
    fps: float | None = None,
    clip_fps: float | None = None,
    multiple: int = 1,
) -> Iterator[ClipFile]:
    """Open a video or picture. size: HEIGHTxWIDTH to resize and crop to; frames: only the first so many; fps: take
    frames at this constant rate; clip_fps: so where the file's own rate is not constant; multiple: without a size,
    sides are cropped to multiples of it, around the centre.

    Raises SoraError for files that cannot be read or hold no video, UsageError for sizes that do not fit.
    """
    from sora_cli.training.clip_reader import UNKNOWN_FPS, BadClipError

    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    with contextlib.ExitStack() as stack:
        try:
            opened = stack.enter_context(open_pixels(path))
            if isinstance(opened, Tensor):
                picture, video, numbers, rate = opened, None, [0], UNKNOWN_FPS
                height, width = picture.shape[1:]
            else:
                if not opened.num_frames:
                    raise BadClipError("it has no frames")
                picture, video = None, opened
                if clip_fps is not None:
                    numbers, rate = chosen_frames(opened, clip_fps), opened.fps
                else:
                    numbers, rate = _numbers(opened, fps, path)
                height, width = next(iter(opened.stream([0]))).shape[1:]
        except BadClipError as error:
            raise SoraError(f"{path}: {error}", hint="give a video or a picture that can be played") from error
        numbers = numbers[:frames]
        kept = _kept_size(path, height, width, size, multiple)
        yield ClipFile(path, len(numbers), rate, *kept, video, picture, numbers, (height, width), size is not None)


def _numbers(video: Video, fps: float | None, path: Path) -> tuple[list[int], float]:
    """The frames to take, and their rate."""
    if fps is None:
        if is_variable(video):
            get_console().warn(
                f"{path} has a variable frame rate; its frames are taken as they come, --fps N makes it constant"
            )
        return list(range(video.num_frames)), video.fps
    return _by_time(video, fps), fps


def chosen_frames(video: Video, fps: float) -> list[int]:
    """The frames of a video that is part of a clip with `fps`: all as they come, so that its seconds become longer or
    shorter where its own constant rate is another; by time where it has no constant rate, and of animations."""
    if isinstance(video, Animation) or is_variable(video):
        return _by_time(video, fps)
    return list(range(video.num_frames))


def _by_time(video: Video, fps: float) -> list[int]:
    """The frame that is shown in the middle of each frame of a clip at a constant rate."""
    times = video.seconds()
    if times is None:  # without times frames are as far apart as the file's rate says
        times = [number / video.fps for number in range(video.num_frames)]
    end = video.end if isinstance(video, Animation) else times[-1] + 1.0 / video.fps
    count = max(1, round((end - times[0]) * fps))
    numbers, place = [], 0
    for index in range(count):
        moment = times[0] + (index + 0.5) / fps
        while place + 1 < len(times) and times[place + 1] <= moment:
            place += 1
        numbers.append(place)
    return numbers


def is_variable(video: Video) -> bool:
    """Whether the frames of a video are clearly not equally far apart."""
    times = video.seconds()
    if times is None:
        return False
    gaps = [after - before for before, after in itertools.pairwise(times)]
    if len(gaps) < 2:
        return False
    mean = sum(gaps) / len(gaps)
    return max(gaps) - min(gaps) > VARIABLE * mean


def _kept_size(path: Path, height: int, width: int, size: str | None, multiple: int) -> tuple[int, int]:
    if size is not None:
        asked = parse_size(size)
        wrong = [side for side in asked if side % multiple]
        if wrong:
            near = [f"{side // multiple * multiple} or {-(-side // multiple) * multiple}" for side in wrong]
            raise UsageError(
                f"--size {size}: the sides must be multiples of {multiple}", hint=f"near it: {', '.join(near)}"
            )
        return asked.height, asked.width
    kept = height // multiple * multiple, width // multiple * multiple
    if not all(kept):
        raise UsageError(f"{path} is {height}x{width}, smaller than {multiple} pixels", hint="give --size HxW")
    if kept != (height, width):
        get_console().warn(
            f"{path} is {height}x{width}; the middle {kept[0]}x{kept[1]} is used, in multiples of {multiple}"
        )
    return kept


def size_and_rate(path: Path) -> tuple[str, float]:
    """HEIGHTxWIDTH of a video, rounded down to multiples of 8, and its frames per second, the mean where they vary.

    Raises SoraError.
    """
    with open_clip(path, clip_fps=1.0) as video:  # the frames are not looked at
        return f"{video.height // 8 * 8}x{video.width // 8 * 8}", video.fps


def changes_in_clip(path: Path, fps: float, name: str | None = None) -> list[str]:
    """What does not stay as it is of a video that is part of a clip with `fps`, for people: its rate and its sound.

    name: of the video in what is said, its path by default. Raises SoraError.
    """
    import av

    from sora_cli.training.clip_reader import BadClipError

    name, notes = name or str(path), []
    try:
        with open_pixels(path) as video:
            if isinstance(video, Tensor):
                return []
            if isinstance(video, Animation) or is_variable(video):
                kind = "is an animation" if isinstance(video, Animation) else "has a variable frame rate"
                notes.append(f"{name} {kind}; its frames are taken by time, {fps:.4g} a second")
            elif abs(video.fps - fps) > SAME_RATE * fps:
                rates = f"{video.fps:.4g} frames a second, and the clip {fps:.4g}"
                notes.append(f"{name} has {rates}; its frames are taken as they come")
            if not isinstance(video, Animation):
                with av.open(f"file:{path}") as container:
                    if container.streams.audio:
                        notes.append(f"{name} has sound; the clip has none")
    except BadClipError as error:
        raise SoraError(f"{name}: {error}", hint="the file may be damaged; re-encode it") from error
    return notes
