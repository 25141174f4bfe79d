"""What a video or picture file is: frames, size, rate. Frames are decoded one by one and not kept."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sora_cli.video.media import is_image
from sora_cli.video.streams import main_stream

from .addresses import is_address

if TYPE_CHECKING:
    from av.container import InputContainer

#: The columns that the reference's table tool writes.
PROBED = ("num_frames", "height", "width", "aspect_ratio", "fps", "resolution")


def probe(path: str | os.PathLike[str], *, fast: bool = False, as_video: bool = False) -> dict[str, Any]:
    """Facts of a file, by column name.

    num_frames (1 is a picture; every frame of a video is decoded), height, width (as stored: rotation is not applied),
    aspect_ratio (height / width), fps (None for pictures), resolution (height x width), duration (seconds, None for
    pictures), rotation (degrees clockwise to show it upright), codec, counted ("decoded", "packets" or "header": how
    frames were counted), error (why it cannot be read, else None). Of a file that cannot be read num_frames, height
    and width are 0 and the others None.

    fast: believe the header, and read the packets only where it does not say how many frames there are. as_video: open
    pictures with the video decoder too.
    """
    name = os.fspath(path)
    try:
        if is_image(name) and not as_video:
            return _picture(name)
        return _video(name, fast=fast)
    except Exception as error:  # decoders raise almost anything for damaged files
        reason = getattr(error, "message", None) or getattr(error, "strerror", None) or str(error)
        return {**_facts(0, 0, 0, None), "error": f"{type(error).__name__}: {reason}".splitlines()[0]}


def _facts(num_frames: int, height: int, width: int, fps: float | None, **others: Any) -> dict[str, Any]:
    return {
        "num_frames": num_frames,
        "height": height,
        "width": width,
        "aspect_ratio": height / width if width else None,
        "fps": fps,
        "resolution": height * width or None,
        **dict.fromkeys(("duration", "rotation", "codec", "counted", "error")),
        **others,
    }


def _picture(name: str) -> dict[str, Any]:
    from PIL import Image

    with _bytes(name) as source, Image.open(source) as picture:
        # Orientation 6: turned a quarter clockwise to be upright (Exif 2.3, tag 0x0112).
        rotation = {3: 180, 6: 90, 8: 270}.get(picture.getexif().get(0x0112, 1), 0)
        kind = (picture.format or "").lower()
        width, height = picture.convert("RGB").size  # converting proves that it can be decoded
    return _facts(1, height, width, None, rotation=rotation, codec=kind, counted="decoded")


def _video(name: str, *, fast: bool) -> dict[str, Any]:
    import av

    # "file:" keeps names with a colon from being read as a protocol.
    # Tags that are not UTF-8 say nothing about the frames.
    with (
        _bytes(name) as source,
        av.open(f"file:{source}" if isinstance(source, str) else source, metadata_errors="ignore") as container,
    ):
        stream = main_stream(container)
        if stream is None:
            raise ValueError("there is no video in it that can be decoded")
        rate = stream.average_rate or stream.guessed_rate
        is_still = container.format.name == "image2" or container.format.name.endswith("_pipe")
        fps = None if is_still or not rate else float(rate)
        codec = stream.codec_context.name
        frames = container.decode(stream)
        first = next(frames, None)
        if first is None:
            raise ValueError("it has no frames")
        if fast:
            count, counted = stream.frames, "header"
            if not count:
                count, counted = _packets(container, stream), "packets"
        else:
            count, counted = 1 + sum(1 for _ in frames), "decoded"
        seconds = count / fps if fps else None
        if fps and stream.duration and stream.time_base:
            seconds = float(stream.duration * stream.time_base)
        rotation = -(getattr(first, "rotation", 0) or 0) % 360
        return _facts(
            count,
            first.height,
            first.width,
            fps,
            duration=seconds,
            rotation=rotation,
            codec=codec,
            counted=counted,
        )


def _packets(container: InputContainer, stream: Any) -> int:
    container.seek(0)
    return sum(1 for packet in container.demux(stream) if packet.size)


@contextlib.contextmanager
def _bytes(name: str) -> Iterator[Any]:
    """The file itself, or an open object of a store."""
    if not is_address(name):
        yield name
        return
    import fsspec

    with fsspec.open(name, "rb") as file:
        yield file
