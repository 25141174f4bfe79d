"""Which videos are measured, which belongs to which original, and what of them is looked at."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from sora_cli.console import counted, get_console
from sora_cli.errors import SoraError, UsageError
from sora_cli.video.clips import SAME_RATE, ClipFile, open_clip
from sora_cli.video.comparison import fit, fitted_size, frame_numbers
from sora_cli.video.media import is_image, is_video

#: Frames of each video that are compared at a time, and pixels of them together.
FRAMES_AT_ONCE, PIXELS_AT_ONCE = 16, 2**22


class Pair(NamedTuple):
    """A video and its original; reason: why it has none, in words."""

    video: Path
    reference: Path | None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Look:
    """What of a video is looked at. frames: at most so many, evenly from the first frames * sample_rate, None for every
    one in sample_rate; fps: take frames at this rate; resolution: the short side becomes so many pixels; crop: then the
    middle square of so many.
    """

    frames: int | None = None
    sample_rate: int = 1
    fps: float | None = None
    resolution: int | None = None
    crop: int | None = None

    def __post_init__(self) -> None:
        if self.crop is not None and self.resolution is None:
            raise UsageError("--crop cuts out of frames of one size", hint="give --resolution too")
        if self.crop is not None and self.resolution is not None and self.crop > self.resolution:
            raise UsageError(f"--crop {self.crop} is more than --resolution {self.resolution}")

    @contextlib.contextmanager
    def open(self, path: Path, *, like: ClipFile | None = None) -> Iterator[ClipFile]:
        """A clip with the frames that are looked at; with `like`, in the size and at the rate of that one.

        Raises SoraError for files that cannot be read, or of which there is nothing to look at.
        """
        size = None if like is None else f"{like.height}x{like.width}"
        with open_clip(path, size=size, fps=self.fps if like is None else like.fps) as clip:
            numbers = self._numbers(clip.num_frames)
            if not numbers:
                raise SoraError(
                    f"{path} has {counted(clip.num_frames, 'frame')}, fewer than --sample-rate {self.sample_rate}"
                )
            yield clip.picked(numbers)

    def _numbers(self, total: int) -> Sequence[int]:
        if self.frames is None:
            return range(0, total, self.sample_rate)
        return frame_numbers(total, self.frames, self.sample_rate)

    def size(self, clip: ClipFile) -> tuple[int, int]:
        """Height and width of what `pieces` gives."""
        if self.crop is not None:
            return self.crop, self.crop
        if self.resolution is not None:
            return fitted_size(clip.height, clip.width, self.resolution)
        return clip.height, clip.width

    def pieces(self, clip: ClipFile, num_frames: int) -> Iterator[Tensor]:
        """Consecutive frames (1, 3, num_frames or fewer at the end, H, W) float32 in [0, 1] of an opened clip."""
        for piece in clip.pieces(num_frames):
            unit = (piece + 1.0) / 2.0
            if self.resolution is not None:
                frames = unit[0].transpose(0, 1)
                unit = fit(frames, resolution=self.resolution, crop=self.crop).transpose(0, 1)[None]
            yield unit

    def together(self, clips: Sequence[ClipFile]) -> Iterator[tuple[Tensor, ...]]:
        """Pieces of clips of one length and size, side by side."""
        count = frames_at_once(*self.size(clips[0]))
        return zip(*(self.pieces(clip, count) for clip in clips), strict=True)


def frames_at_once(height: int, width: int) -> int:
    """How many frames of a size are in memory of each video."""
    return max(1, min(FRAMES_AT_ONCE, PIXELS_AT_ONCE // (height * width)))


@contextlib.contextmanager
def open_together(paths: Sequence[Path], look: Look, *, fitted: bool) -> Iterator[list[ClipFile]]:
    """Clips that are compared frame by frame with the first. Raises SoraError where their sizes or lengths differ.

    fitted: instead, the others get the size of the first and, where it differs, its rate, and all are cut to the length
    of the shortest.
    """
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(look.open(paths[0]))
        clips = [first]
        for path in paths[1:]:
            clip = stack.enter_context(look.open(path))
            if fitted and (_size(clip) != _size(first) or _has_other_rate(clip, first)):
                clip = stack.enter_context(look.open(path, like=first))
            clips.append(clip)
        if fitted:
            shortest = min(clip.num_frames for clip in clips)
            if cut := [f"{clip.num_frames} of {clip.path}" for clip in clips if clip.num_frames > shortest]:
                get_console().note(f"the first {shortest} frames are compared, of {', '.join(cut)}")
            clips = [clip.only(0, shortest) for clip in clips]
        for clip in clips[1:]:
            _check_alike(clip, clips[0], look)
        yield clips


def _size(clip: ClipFile) -> tuple[int, int]:
    return clip.height, clip.width


def _has_other_rate(clip: ClipFile, first: ClipFile) -> bool:
    return min(clip.num_frames, first.num_frames) > 1 and abs(clip.fps - first.fps) > SAME_RATE * first.fps


def _check_alike(clip: ClipFile, first: ClipFile, look: Look) -> None:
    ours, theirs = look.size(clip), look.size(first)
    if ours != theirs:
        raise SoraError(
            f"{clip.path} is {ours[0]}x{ours[1]}, and {first.path} {theirs[0]}x{theirs[1]}",
            hint="--fit brings it to the size of the original",
        )
    if clip.num_frames != first.num_frames:
        raise SoraError(
            f"{clip.path} has {counted(clip.num_frames, 'frame')}, and {first.path} {first.num_frames}",
            hint="--fit compares what both have, by time where their rates differ",
        )


def find_videos(places: Sequence[Path]) -> list[Path]:
    """Files as they are given, and the videos and pictures of folders, sorted by name, without hidden ones.

    Raises UsageError for what is not there, and for folders without any.
    """
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            inside = [path for path in sorted(place.iterdir()) if _is_shown(path)]
            if not inside:
                raise UsageError(f"the folder {place} has no videos and no pictures")
            found += inside
        elif place.is_file():
            found.append(place)
        else:
            raise UsageError(f"there is no file or folder {place}")
    return list(dict.fromkeys(found))


def _is_shown(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".") and (is_video(path) or is_image(path))


def pair_up(videos: Sequence[Path], references: Sequence[Path], *, by_position: bool) -> list[Pair]:
    """Each video with its original: the one of the same name without ending, or in the same place of both lists.

    A video without an original has the reason instead. Raises UsageError for lists of two lengths, by position.
    """
    if by_position:
        if len(videos) != len(references):
            raise UsageError(
                f"there are {len(videos)} videos and {len(references)} originals", hint="by position each needs its own"
            )
        return [Pair(*both) for both in zip(videos, references, strict=True)]
    named: dict[str, list[Path]] = {}
    for reference in references:
        named.setdefault(reference.stem, []).append(reference)
    pairs = []
    for video in videos:
        found = named.get(video.stem, [])
        same = [path for path in found if path.name == video.name]
        if len(found) == 1 or len(same) == 1:
            pairs.append(Pair(video, (same or found)[0]))
        elif found:
            pairs.append(Pair(video, None, f"several originals have its name: {', '.join(map(str, found))}"))
        else:
            pairs.append(Pair(video, None, "no original has its name"))
    return pairs
