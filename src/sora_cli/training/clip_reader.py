"""Decoding of training clips: only the frames that are used, turned upright.

Frames are numbered in display order. A reader opens a file and gives frames by number; `READERS` names the readers.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from sora_cli.errors import MissingError
from sora_cli.video.streams import frames_from, main_stream

#: Rate of a video that does not say its own, and the rate that stands for pictures.
UNKNOWN_FPS, IMAGE_FPS = 24.0, 120.0
MISSING = "the file is missing"
BROKEN = "it cannot be decoded"
SHORT = "it has fewer frames than the table says"


class BadClipError(Exception):
    """A clip that cannot be used. reason: one of few, for counting; detail: what exactly."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class Video(Protocol):
    """An open video."""

    num_frames: int
    fps: float

    def frames(self, numbers: Sequence[int]) -> Tensor:
        """Frames (n, 3, H, W) uint8 by number; numbers rise, and may repeat. Raises BadClipError."""
        ...

    def stream(self, numbers: Sequence[int]) -> Iterator[Tensor]:
        """The same one by one, (3, H, W) uint8."""
        ...

    def seconds(self) -> list[float] | None:
        """When each frame is shown, where the file says so."""
        ...


class Clip(NamedTuple):
    """Frames (T, 3, H, W) uint8. fps: of the file; interval: frames of the file per frame."""

    frames: Tensor
    fps: float
    interval: float


def read_clip(
    path: Path,
    num_frames: int,
    choose: Callable[[int], Sequence[int]],
    *,
    least_frames: int = 1,
    reader: str = "pyav",
) -> Clip:
    """The frames of a video that `choose` picks. choose(total frames) -> rising frame numbers.

    least_frames: what the table promises; a file with fewer is bad. Raises BadClipError.
    """
    from .transforms import effective_interval

    if not path.is_file():
        raise BadClipError(MISSING)
    with READERS[reader](path) as video:
        if video.num_frames < least_frames:
            raise BadClipError(SHORT, f"{video.num_frames} instead of {least_frames}")
        try:
            numbers = list(choose(video.num_frames))
        except ValueError as error:
            raise BadClipError(SHORT, str(error)) from error
        return Clip(video.frames(numbers), video.fps, effective_interval(numbers))


def read_image(path: Path) -> Tensor:
    """A picture (1, 3, H, W) uint8, turned upright; one that is cut off keeps what is there. Raises BadClipError."""
    from PIL import Image, ImageFile, ImageOps

    if not path.is_file():
        raise BadClipError(MISSING)
    before, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, True
    try:
        with Image.open(path) as picture:
            pixels = np.array(ImageOps.exif_transpose(picture).convert("RGB"))
    except Exception as error:  # Pillow's decoders raise almost anything for damaged files
        raise BadClipError(BROKEN, str(error)) from error
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


# -- PyAV ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _open_pyav(path: Path) -> Iterator[Video]:
    import av

    with contextlib.ExitStack() as stack:
        try:
            video = _PyAvVideo(stack.enter_context(av.open(f"file:{path}", metadata_errors="ignore")))
        except (av.error.FFmpegError, OSError) as error:
            raise BadClipError(BROKEN, error.strerror or str(error)) from error
        yield video


class _PyAvVideo:
    """Frame numbers are places in the sorted display times of all packets, which are read without decoding."""

    def __init__(self, container: Any) -> None:
        self.container, self.stream_of_video = container, main_stream(container)
        if self.stream_of_video is None:
            raise BadClipError(BROKEN, "there is no video in it that can be decoded")
        # One thread: several files are decoded at a time by the loader's processes.
        self.stream_of_video.codec_context.thread_count = 1
        self.fps = float(self.stream_of_video.average_rate or UNKNOWN_FPS)
        # Not the packets themselves, which are the whole file.
        packets = [
            (packet.pts, packet.is_keyframe)
            for packet in container.demux(self.stream_of_video)
            if packet.size and not packet.is_discard
        ]
        self.num_frames = len(packets)
        times = [time for time, _ in packets]
        # Without display times frames can only be counted from the first.
        self.times = sorted(times) if None not in times and len(set(times)) == len(times) else None
        self.key_times = sorted(time for time, is_key in packets if is_key) if self.times else []

    def frames(self, numbers: Sequence[int]) -> Tensor:
        """As the protocol."""
        return torch.stack(list(self.stream(numbers)))

    def stream(self, numbers: Sequence[int]) -> Iterator[Tensor]:
        """As the protocol."""
        counts, size = Counter(numbers), None
        for number, frame in _decoding(self._decoded(numbers[0])):
            if number not in counts:
                continue
            pixels = _upright(frame)
            if size not in (None, pixels.shape):
                raise BadClipError(BROKEN, "its frames have several sizes")
            size = pixels.shape
            for _ in range(counts.pop(number)):
                yield pixels
            if not counts:
                return
        raise BadClipError(BROKEN, f"{len(counts)} of {len(set(numbers))} frames did not come out")

    def seconds(self) -> list[float] | None:
        """As the protocol."""
        unit = self.stream_of_video.time_base
        return None if self.times is None or unit is None else [float(time * unit) for time in self.times]

    def _decoded(self, first: int) -> Iterator[tuple[int, Any]]:
        """(number, frame) from the key frame before `first` on."""
        if self.times is None:
            self.container.seek(0)
            yield from enumerate(self.container.decode(self.stream_of_video))
            return
        start = max((time for time in self.key_times if time <= self.times[first]), default=self.times[0])
        place = {time: number for number, time in enumerate(self.times)}
        for frame in frames_from(self.container, self.stream_of_video, start):
            if frame.pts in place:
                yield place[frame.pts], frame


def _decoding(frames: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    """The frames, with errors of the decoder as BadClipError."""
    import av

    try:
        yield from frames
    except (av.error.FFmpegError, OSError) as error:
        raise BadClipError(BROKEN, error.strerror or str(error)) from error


def _upright(frame: Any) -> Tensor:
    pixels = frame.to_ndarray(format="rgb24")
    quarters = round(frame.rotation / 90) % 4  # counter-clockwise, as NumPy turns
    return torch.from_numpy(np.ascontiguousarray(np.rot90(pixels, quarters))).permute(2, 0, 1)


# -- decord --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _open_decord(path: Path) -> Iterator[Video]:
    try:
        import decord
    except ImportError as error:
        raise MissingError(
            "the reader decord is not installed", hint="pip install 'sora-cli[decord]', or use --reader pyav"
        ) from error
    try:
        yield _DecordVideo(decord.VideoReader(str(path), num_threads=1))
    except (decord.DECORDError, RuntimeError) as error:  # the second when a file cannot be opened
        raise BadClipError(BROKEN, str(error).splitlines()[0]) from error


class _DecordVideo:
    """decord turns frames upright by itself."""

    def __init__(self, video: Any) -> None:
        self.video, self.num_frames = video, len(video)
        self.fps = float(video.get_avg_fps() or UNKNOWN_FPS)

    def frames(self, numbers: Sequence[int]) -> Tensor:
        """As the protocol."""
        pixels: np.ndarray[Any, Any] = self.video.get_batch(list(numbers)).asnumpy()
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)

    def stream(self, numbers: Sequence[int]) -> Iterator[Tensor]:
        """As the protocol."""
        for number in numbers:
            yield self.frames([number])[0]

    def seconds(self) -> list[float] | None:
        """As the protocol."""
        return [float(start) for start, _ in self.video.get_frame_timestamp(range(self.num_frames))]


READERS: dict[str, Callable[[Path], contextlib.AbstractContextManager[Video]]] = {
    "pyav": _open_pyav,
    "decord": _open_decord,
}
