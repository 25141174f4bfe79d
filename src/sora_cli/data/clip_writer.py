"""Clips cut out of a video: copied where that is exact, else encoded anew, with the video's own frame times.

Times are seconds from the first frame of the video. A clip has the frames that begin inside its segment, with some
tolerance, so that a boundary that was rounded takes no frame of the scene before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from sora_cli.errors import SoraError
from sora_cli.video.streams import WITHOUT_INDEX, frames_from, main_stream

from .clip_folder import ClipFolder
from .timestamps import Segment, scaled_size

#: A gap between segments that is worth a jump instead of decoding.
LEAST_JUMP = Fraction(10)
#: How far a boundary may be off, seconds; half a frame where that is less. Tables have it to 1/1000 or 1/100 s.
TOLERANCE = Fraction(6, 1000)
#: Time units of written files that come from files of any other.
TIME_BASE = Fraction(1, 90_000)


@dataclass(frozen=True)
class ClipFormat:
    """What clips are like. fps: frames per second, None for the frames as they are; shorter_size: in pixels, of larger
    videos; crf: quality, lower is better; keeps_audio; copies: use the packets of the file where that gives exactly the
    frames wanted.
    """

    fps: int | None = None
    shorter_size: int | None = None
    crf: int = 18
    keeps_audio: bool = False
    copies: bool = True


class ClipFacts(NamedTuple):
    """A clip that was written. start, duration: seconds; is_copy: whether nothing was encoded."""

    start: float
    duration: float
    num_frames: int
    fps: float
    height: int
    width: int
    is_copy: bool


def write_clips(
    source: str, wanted: Sequence[tuple[Segment, str]], folder: ClipFolder, form: ClipFormat
) -> list[ClipFacts | None]:
    """Write the segments of a video, in order of their start, each whole or not at all; None for one without frames.

    wanted: with the name of each in the folder. Raises SoraError when the video cannot be read or a clip not be
    written. Clips that were there are replaced.
    """
    import av

    made: list[ClipFacts | None] = []
    try:
        with _Source(source) as video:
            for segment, name in wanted:
                with folder.new_file(name) as path:
                    facts = _copied(video, segment, path, form) or _encoded(video, segment, path, form)
                    if facts is None:
                        path.unlink(missing_ok=True)
                made.append(facts)
    except (av.error.FFmpegError, OSError) as error:
        raise SoraError(f"cannot cut it: {error}") from error
    return made


class _Source:
    """A video that is read from segment to segment."""

    def __init__(self, path: str) -> None:
        import av

        self.path = path
        self.container = av.open(f"file:{path}", metadata_errors="ignore")
        self.video: Any = main_stream(self.container)
        if self.video is None:
            self.container.close()
            raise SoraError("there is no video in it that can be decoded")
        self.audio: Any = next(iter(self.container.streams.audio), None)
        self.video.codec_context.thread_count = 1
        self.fps = Fraction(self.video.average_rate or self.video.guessed_rate or 25)
        self.tolerance = min(TOLERANCE, 1 / self.fps / 2)
        self.has_index = self.container.format.name not in WITHOUT_INDEX
        self.origin = self._first_time()
        self._frames: Iterator[Any] | None = None
        self._waiting: Any = None

    def __enter__(self) -> _Source:
        return self

    def __exit__(self, *error: object) -> None:
        self.container.close()

    def _first_time(self) -> Fraction:
        """Display time of the first frame."""
        frame = next(self.container.decode(self.video), None)
        if frame is None:
            raise SoraError("it has no frames")
        return Fraction(0) if frame.pts is None else Fraction(frame.pts) * frame.time_base

    def jump(self, seconds: Fraction) -> None:
        """Go on reading before this time."""
        if self.has_index:
            self.container.seek(self._units(seconds), stream=self.video, backward=True)
        else:
            self.container.seek(0)
        self._frames, self._waiting = None, None

    def _units(self, seconds: Fraction) -> int:
        return int((seconds + self.origin) / self.video.time_base)

    def frames(self, start: Fraction, end: Fraction | None) -> Iterator[tuple[Fraction, Any]]:
        """(time, frame) of the frames that begin from start to end."""
        slack = self.tolerance
        # Without a waiting frame everything has been read, to the end of the file.
        place = None if self._waiting is None else self._time(self._waiting)
        if self._frames is None or place is None or place > start or start - place > LEAST_JUMP:
            self._frames, self._waiting = frames_from(self.container, self.video, self._units(start)), None
        while True:
            frame = self._waiting if self._waiting is not None else next(self._frames, None)
            self._waiting = None
            if frame is None:
                return
            time = self._time(frame)
            if end is not None and time + slack >= end:
                self._waiting = frame
                return
            if time + slack >= start:
                yield time, frame

    def _time(self, frame: Any) -> Fraction:
        if frame.pts is None:
            raise SoraError("its frames have no times")
        return Fraction(frame.pts) * frame.time_base - self.origin


def _encoded(video: _Source, segment: Segment, path: Path, form: ClipFormat) -> ClipFacts | None:
    """The segment in H.264, as it is to be shown: upright, square pixels, progressive, 8 bits."""
    frames = video.frames(segment.start, segment.end)
    first = next(frames, None)
    if first is None:
        return None
    with _Writer(path, video, first[1], form) as writer:
        writer.add(*first)
        for time, frame in frames:
            writer.add(time, frame)
        writer.end_video()
        if form.keeps_audio and video.audio is not None:
            _add_audio(video, writer, first[0], first[0] + writer.seconds)
    rate = float(writer.count / writer.seconds)
    return ClipFacts(float(first[0]), float(writer.seconds), writer.count, rate, *writer.size, is_copy=False)


class _Writer:
    """An open clip."""

    def __init__(self, path: Path, video: _Source, frame: Any, form: ClipFormat) -> None:
        import av

        self.form, self.count, self.last_time = form, 0, Fraction(0)
        self._usual = 1 / video.fps
        self._last: tuple[Fraction, Any] | None = None
        self._start: Fraction | None = None
        self.graph, self.size = _graph(video, frame, form.shorter_size)
        self.container = av.open(f"file:{path}", "w", format="mp4", options={"movflags": "+faststart"})
        rate = form.fps or video.fps
        self.stream: Any = self.container.add_stream("libx264", rate=rate)
        self.stream.height, self.stream.width = self.size
        self.stream.pix_fmt = "yuv420p"
        self.stream.options = {"crf": str(form.crf), "preset": "fast"}
        self.stream.codec_context.time_base = TIME_BASE
        self.stream.codec_context.thread_count = 1
        self.audio: Any = None
        if form.keeps_audio and video.audio is not None:
            self.audio = self.container.add_stream("aac", rate=video.audio.rate or 48_000)

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(Exception) if error[0] else contextlib.nullcontext():
            self.container.close()

    @property
    def seconds(self) -> Fraction:
        """Length of what was written."""
        if self.form.fps:
            return Fraction(self.count, self.form.fps)
        return self.last_time - (self._start or 0) + self._usual

    def add(self, time: Fraction, frame: Any) -> None:
        """The next frame. At another rate each moment shows the latest frame."""
        if self._start is None:
            self._start = time
        self.last_time = time
        if not self.form.fps:
            self._write(time - self._start, frame)
            return
        if self._last is not None:
            self._repeat(until=time)
        self._last = (time, frame)

    def end_video(self) -> None:
        """No more frames."""
        if self.form.fps:
            self._repeat(until=self.last_time + self._usual)
        self.graph.push(None)
        self._pull()
        self.container.mux(self.stream.encode())

    def _repeat(self, until: Fraction) -> None:
        assert self._start is not None
        assert self._last is not None
        assert self.form.fps
        step = Fraction(1, self.form.fps)
        while self._start + self.count * step < until:
            self._write(self.count * step, self._last[1])

    def _write(self, time: Fraction, frame: Any) -> None:
        self.count += 1
        before = frame.pts, frame.time_base
        frame.pts, frame.time_base = round(time / TIME_BASE), TIME_BASE
        self.graph.push(frame)
        frame.pts, frame.time_base = before
        self._pull()

    def _pull(self) -> None:
        import av

        while True:
            try:
                ready = self.graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            ready.pict_type = 0
            self.container.mux(self.stream.encode(ready))


def _graph(video: _Source, frame: Any, shorter_size: int | None) -> tuple[Any, tuple[int, int]]:
    """Filters that make frames ready to encode, and the size (height, width) of what comes out."""
    import av.filter

    graph = av.filter.Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format.name, time_base=TIME_BASE)
    height, width = frame.height, frame.width
    aspect = video.video.sample_aspect_ratio or 1
    width = max(1, round(width * aspect)) if aspect > 0 else width
    steps: list[tuple[str, str]] = []
    if frame.interlaced_frame:
        steps.append(("bwdif", "mode=send_frame"))
    quarters = round((getattr(frame, "rotation", 0) or 0) / 90) % 4
    # frame.rotation counts counter-clockwise; transpose=2 turns a quarter counter-clockwise.
    steps += [("transpose", "2")] * quarters
    if quarters % 2:
        height, width = width, height
    size = scaled_size(height, width, shorter_size)
    steps += [("scale", f"{size[1]}:{size[0]}:flags=bicubic"), ("setsar", "1"), ("format", "yuv420p")]
    nodes = [source, *(graph.add(name, settings) for name, settings in steps), graph.add("buffersink")]
    graph.link_nodes(*nodes).configure()
    return graph, size


def _add_audio(video: _Source, writer: _Writer, start: Fraction, end: Fraction) -> None:
    """The sound between two times, encoded anew."""
    import av

    resampler = av.AudioResampler(format="fltp", layout=writer.audio.layout, rate=writer.audio.rate)
    video.jump(start)
    written: int | None = None
    for frame in video.container.decode(video.audio):
        if frame.pts is None:
            continue
        time = Fraction(frame.pts) * frame.time_base - video.origin
        if time >= end:
            break
        if time + Fraction(frame.samples, frame.sample_rate) <= start:
            continue
        if written is None:  # sound that begins after the pictures stays behind them
            written = max(0, round((time - start) * writer.audio.rate))
        for ready in resampler.resample(frame):
            ready.pts, ready.time_base = written, Fraction(1, ready.sample_rate)
            written += ready.samples
            writer.container.mux(writer.audio.encode(ready))
    writer.container.mux(writer.audio.encode(None))
    video.jump(end)


def _copied(video: _Source, segment: Segment, path: Path, form: ClipFormat) -> ClipFacts | None:
    """The segment's own packets, None where they are not exactly its frames as they are to be shown.

    Exact means: it starts at a key frame and ends before one or with the file, and what was written decodes to as many
    frames at the same times.
    """
    stream = video.video
    context = stream.codec_context
    is_plain = form.copies and not form.fps and context.name == "h264" and context.pix_fmt == "yuv420p"
    is_square = (stream.sample_aspect_ratio or 1) == 1
    is_small = scaled_size(context.height, context.width, form.shorter_size) == (context.height, context.width)
    is_silent = not (form.keeps_audio and video.audio is not None)
    if not (is_plain and is_square and is_small and is_silent and video.has_index):
        return None
    slack = video.tolerance

    def time(packet: Any) -> Fraction:
        return Fraction(packet.pts) * packet.time_base - video.origin

    video.jump(segment.start + slack)
    packets: list[Any] = []
    for packet in video.container.demux(stream):
        if packet.pts is None or packet.dts is None:
            break
        is_inside = segment.start <= time(packet) + slack and (
            segment.end is None or time(packet) + slack < segment.end
        )
        if not packets and not (packet.is_keyframe and abs(time(packet) - segment.start) <= slack):
            return None
        if not is_inside:
            if not packet.is_keyframe:
                return None
            break
        packets.append(packet)
    video.jump(segment.start)
    if not packets:
        return None
    times = sorted(time(packet) for packet in packets)
    _remux(stream, packets, path)
    found = _times_in(path)
    if (
        found is None
        or len(found) != len(times)
        or any(abs((one - found[0]) - (other - times[0])) > slack for one, other in zip(found, times, strict=True))
    ):
        return None
    seconds = times[-1] - times[0] + 1 / video.fps
    rate = float(len(times) / seconds)
    size = context.height, context.width
    return ClipFacts(float(times[0]), float(seconds), len(times), rate, *size, is_copy=True)


def _remux(stream: Any, packets: Sequence[Any], path: Path) -> None:
    import av

    first = min(packet.pts for packet in packets)
    with av.open(f"file:{path}", "w", format="mp4", options={"movflags": "+faststart"}) as container:
        copy = container.add_stream_from_template(stream)
        for packet in packets:
            packet.pts -= first
            packet.dts -= first
            packet.stream = copy
            container.mux(packet)


def _times_in(path: Path) -> list[Fraction] | None:
    """Display times of all frames that come out of a file, None when it is damaged, turned or interlaced."""
    import av

    try:
        with av.open(f"file:{path}") as container:
            frames = [
                (frame.pts, frame.time_base, frame.rotation or frame.interlaced_frame)
                for frame in container.decode(video=0)
            ]
    except av.error.FFmpegError:
        return None
    if any(pts is None or is_other for pts, _, is_other in frames):
        return None
    return sorted(Fraction(pts) * base for pts, base, _ in frames)
