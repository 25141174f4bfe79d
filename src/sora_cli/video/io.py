"""Writing videos and images: streamed, complete or absent, the same bytes every time."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sora_cli.errors import SoraError
from sora_cli.files import claimed

from .settings import CRF, PNG_KEYWORD, dump_settings, find_settings, read_settings, sidecar_path

if TYPE_CHECKING:
    import av
    from numpy.typing import NDArray

__all__ = ["find_settings", "frame_rate", "open_video", "read_settings", "sidecar_path", "write_image", "write_video"]

#: Fixed, because x264's output depends on the number of threads.
ENCODER_THREADS = 2
#: ITU-T H.273 code point 1 is BT.709 for primaries, transfer and matrix; range 1 is "limited" (16 to 235).
BT709 = 1
LIMITED_RANGE = 1
#: One frame in about a quarter of an hour; 0 would be no rate.
SLOWEST_RATE = Fraction(1, 1000)


def frame_rate(fps: float) -> Fraction:
    """Frames per second as an exact fraction; one within 0.005 of a broadcast rate is that: 23.976 = 24000/1001."""
    nearest = round(fps * 1001 / 1000)
    broadcast = Fraction(nearest * 1000, 1001)
    if nearest and fps != round(fps) and abs(fps - float(broadcast)) < 0.005:
        return broadcast
    return max(Fraction(fps).limit_denominator(1000), SLOWEST_RATE)


def partial_path(path: Path) -> Path:
    """The name a file has while it is written: `clip.mp4` -> `clip.partial.mp4`, in the same folder."""
    return path.with_name(f"{path.stem}.partial{path.suffix}")


def write_video(
    path: Path, frames: Iterable[NDArray[np.uint8]], fps: float, settings: Mapping[str, Any] | None = None
) -> int:
    """Encode pieces of frames (T, H, W, 3) uint8 RGB as H.264 in MP4, as they come, and return how many there were.

    yuv420p with the BT.709 matrix and tags, moov atom in front, first frame at time 0. `settings` go into the file's
    comment and into `<path>.json`. The file appears under its name when it is complete; whatever goes wrong, nothing
    is left behind. Raises SoraError when it cannot be written (no space, no permission).
    """
    count = 0
    with open_video(path, fps, settings) as add:
        for piece in frames:
            add(piece)
            count += len(piece)
    return count


@contextlib.contextmanager
def open_video(
    path: Path,
    fps: float,
    settings: Mapping[str, Any] | None = None,
    *,
    crf: int = CRF,
    sidecar: bool = True,
) -> Iterator[Callable[[NDArray[np.uint8]], None]]:
    """A function that takes the pieces of frames of a video in their order; see `write_video`.

    crf: x264's constant quality, lower is better. sidecar: whether the settings are written beside the file too.
    """
    with _written_whole(path, settings, sidecar=sidecar) as partial:
        encoder: _Encoder | None = None

        def add(piece: NDArray[np.uint8]) -> None:
            nonlocal encoder
            with _disk_errors(path):
                if encoder is None:
                    encoder = _Encoder(partial, frame_rate(fps), piece.shape[1], piece.shape[2], settings, crf)
                encoder.add(piece)

        try:
            yield add
            if encoder is None:
                raise ValueError("no frames to write")
            with _disk_errors(path):
                encoder.finish()
        except BaseException:
            if encoder is not None:
                encoder.abandon()
            raise


def write_image(
    path: Path, image: NDArray[np.uint8], settings: Mapping[str, Any] | None = None, *, sidecar: bool = True
) -> None:
    """Write (H, W, 3) uint8 RGB as PNG with the settings in a text chunk and in `<path>.json`; see `write_video`."""
    from PIL import Image, PngImagePlugin

    info = PngImagePlugin.PngInfo()
    if settings is not None:
        info.add_text(PNG_KEYWORD, dump_settings(settings))
    with _written_whole(path, settings, sidecar=sidecar) as partial, _disk_errors(path):
        Image.fromarray(image).save(partial, format="PNG", pnginfo=info)


class _Encoder:
    """An open MP4 file."""

    def __init__(
        self, path: Path, rate: Fraction, height: int, width: int, settings: Mapping[str, Any] | None, crf: int
    ) -> None:
        import av
        from av.video.reformatter import VideoReformatter

        # bitexact leaves the library version out; "file:" keeps names with a colon from being read as a protocol.
        options = {"movflags": "+faststart", "fflags": "+bitexact"}
        self.container = av.open(f"file:{path}", "w", format="mp4", options=options)
        if settings is not None:
            self.container.metadata["comment"] = dump_settings(settings)
        self.stream = self.container.add_stream("libx264", rate=rate)
        self.stream.height, self.stream.width, self.stream.pix_fmt = height, width, "yuv420p"
        # Without B frames decoding order is display order: no edit list, no start offset in any player. Macroblock-tree
        # rate control is off: with it, one of some tens of encodings of the same frames has other bytes.
        self.stream.options = {"crf": str(crf), "preset": "medium", "bf": "0", "x264-params": "mbtree=0"}
        context = self.stream.codec_context
        context.time_base = 1 / rate
        context.thread_count = ENCODER_THREADS
        context.color_primaries = context.color_trc = context.colorspace = BT709
        context.color_range = LIMITED_RANGE
        self.time_base = 1 / rate
        # Any: the names of colour spaces are accepted by every version, but typed as numbers by some.
        self.reformatter: Any = VideoReformatter()
        self.num_frames = 0

    def add(self, piece: NDArray[np.uint8]) -> None:
        """Encode frames (T, H, W, 3)."""
        for picture in piece:
            frame = self._frame(picture)
            frame.pts, frame.time_base = self.num_frames, self.time_base
            self.num_frames += 1
            self.container.mux(self.stream.encode(frame))

    def _frame(self, picture: NDArray[np.uint8]) -> av.VideoFrame:
        import av

        rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        return self.reformatter.reformat(
            rgb,
            format="yuv420p",
            src_colorspace="ITU709",
            dst_colorspace="ITU709",
            src_color_range="JPEG",
            dst_color_range="MPEG",
            interpolation="BICUBIC",
        )

    def finish(self) -> None:
        """Write what the encoder still holds, and the index."""
        self.container.mux(self.stream.encode())
        self.container.close()

    def abandon(self) -> None:
        """Close an incomplete file."""
        with contextlib.suppress(Exception):  # the first error is the one to report
            self.container.close()


@contextlib.contextmanager
def _written_whole(path: Path, settings: Mapping[str, Any] | None, *, sidecar: bool = True) -> Iterator[Path]:
    """A temporary name to write to; afterwards the file and its sidecar get their names, or nothing stays.

    Raises SoraError when another process is writing the file: both would write to the temporary name.

    sidecar: whether settings get one. Without it the sidecar of the file that is replaced goes.
    """
    partial, beside = partial_path(path), sidecar_path(path)
    partial_beside = partial_path(beside)
    with contextlib.ExitStack() as stack:
        with _disk_errors(path):
            stack.enter_context(claimed(partial))
        try:
            yield partial
            with _disk_errors(path):
                if settings is not None and sidecar:
                    text = json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False)
                    partial_beside.write_text(text + "\n", encoding="utf-8")
                    # The sidecar first: once the video has its name, all of it is there.
                    os.replace(partial_beside, beside)
                elif not sidecar:
                    beside.unlink(missing_ok=True)
                os.replace(partial, path)
        except BaseException:
            for leftover in (partial, partial_beside):
                with contextlib.suppress(OSError):
                    leftover.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of writing `path` into one message."""
    try:
        yield
    except OSError as error:
        raise write_failed(path, error) from error


def write_failed(path: Path, error: OSError) -> SoraError:
    """The error for a file that could not be written, with what to do about it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        hint = "make room, or choose another disk with --output, and run the same command again"
        return SoraError(f"no space left to write {path}", hint=hint)
    reason = error.strerror or str(error)
    return SoraError(f"cannot write {path}: {reason}", hint="choose another place with --output")
