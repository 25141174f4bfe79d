"""Small frames of a whole video, one by one, for what looks at every frame of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from sora_cli.errors import SoraError
from sora_cli.video.streams import main_stream

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Rate of a video that does not say one.
UNKNOWN_FPS = Fraction(25)


@dataclass
class Analysis:
    """An open video. frames: RGB (H, W, 3) uint8 in display order, once; fps: on average.

    times: of the frames that have been read, in seconds from the first; end: of the last of them.
    """

    frames: Iterator[NDArray[np.uint8]]
    fps: Fraction
    times: list[Fraction] = field(default_factory=list)
    end: Fraction = Fraction(0)


@contextlib.contextmanager
def analyse(
    path: str, size: Callable[[int, int], tuple[int, int]], *, is_rough: bool = False, threads: int = 1
) -> Iterator[Analysis]:
    """Open a video for a look at all of its frames.

    size: (height, width) -> (height, width) of the small frames. is_rough: leave out the decoder's smoothing of block
    edges, which small frames do not show, and be faster. Raises SoraError for what is no video; the iterator ends where
    a damaged file does, and raises SoraError when nothing could be decoded.
    """
    import av

    try:
        container = av.open(f"file:{path}", metadata_errors="ignore")
    except (av.error.FFmpegError, OSError) as error:
        raise SoraError(f"cannot open it: {error}") from error
    with container:
        stream = main_stream(container)
        if stream is None:
            raise SoraError("there is no video in it that can be decoded")
        stream.codec_context.thread_count = threads
        if is_rough:
            stream.codec_context.options = {"skip_loop_filter": "all"}
        analysis = Analysis(iter(()), stream.average_rate or stream.guessed_rate or UNKNOWN_FPS)
        analysis.frames = _frames(container, stream, size, analysis)
        yield analysis


def _frames(
    container: Any, stream: Any, size: Callable[[int, int], tuple[int, int]], analysis: Analysis
) -> Iterator[NDArray[np.uint8]]:
    import av
    from av.video.reformatter import VideoReformatter

    reformatter: Any = VideoReformatter()
    usual, first = 1 / analysis.fps, None
    decoder = container.decode(stream)
    while True:
        try:
            frame = next(decoder, None)
        except (av.error.FFmpegError, OSError) as error:
            if not analysis.times:
                raise SoraError(f"it cannot be decoded: {error}") from error
            return
        if frame is None:
            if not analysis.times:
                raise SoraError("it has no frames")
            return
        last = analysis.times[-1] if analysis.times else -usual
        time = last + usual if frame.pts is None else Fraction(frame.pts) * frame.time_base
        if first is None:
            first = time if frame.pts is not None else Fraction(0)
        analysis.times.append(time - first if frame.pts is not None else time)
        analysis.end = analysis.times[-1] + (
            Fraction(frame.duration) * frame.time_base if getattr(frame, "duration", 0) else usual
        )
        height, width = size(frame.height, frame.width)
        small = reformatter.reformat(frame, width=width, height=height, format="rgb24", interpolation="BILINEAR")
        yield small.to_ndarray()
