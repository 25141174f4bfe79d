"""The pictures of an open container: which stream has them, and reading it from a time on."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

#: Containers without an index: jumps into them land anywhere, also behind the place or in the middle of a group, and
#: the times of frames are others than without a jump.
WITHOUT_INDEX = ("mpeg", "mpegts")


def main_stream(container: Any) -> Any:
    """The first video stream that can be decoded and is no picture on the cover of a sound file; None without one."""
    from av.stream import Disposition

    streams = (each for each in container.streams.video if not each.disposition & Disposition.attached_pic)
    return next((each for each in streams if each.codec_context is not None), None)


def frames_from(container: Any, stream: Any, time: int) -> Iterator[Any]:
    """Decoded frames from the one at `time`, in units of the stream, or from an earlier one on.

    Some containers are searched by the time of decoding, which lies before that of showing, so that a jump can land
    behind `time`; then one to a second before is tried, and at last everything is read from the first frame on.
    """
    import av

    second = round(1 / Fraction(stream.time_base))
    for place in () if container.format.name in WITHOUT_INDEX else (time, time - second):
        try:
            container.seek(place, stream=stream, backward=True)
        except av.error.FFmpegError:  # before the beginning
            continue
        frames = container.decode(stream)
        first = next(frames, None)
        if first is not None and (first.pts is None or first.pts <= time):
            yield first
            yield from frames
            return
    container.seek(0)
    yield from container.decode(stream)
