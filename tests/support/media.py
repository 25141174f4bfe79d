"""Pictures and videos made for tests."""

from __future__ import annotations

import io
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image


def picture(colour: str) -> bytes:
    """A PNG file of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (128, 96), colour).save(file, "PNG")
    return file.getvalue()


def save_video(path: Path, frames: list[np.ndarray], times: list[int] | None = None, *, sound: bool = False,
               codec: str = "libx264", pix_fmt: str = "yuv420p") -> None:  # fmt: skip
    """Frames (H, W, 3) at 24 a second, or at times in 24ths of a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=24)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = Fraction(1, 24)
        audio = container.add_stream("aac", rate=48000) if sound else None
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = (times or range(len(frames)))[number], Fraction(1, 24)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if audio is not None:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.sample_rate, silence.pts = 48000, 0
            container.mux(audio.encode(silence))
            container.mux(audio.encode())


def greys(count: int, size: tuple[int, int] = (32, 48), step: int = 10) -> list[np.ndarray]:
    """Frames that become lighter by `step` each."""
    return [np.full((*size, 3), step * (number + 1), np.uint8) for number in range(count)]


def turn(path: Path, quarters: int) -> None:
    """Write a display matrix into an MP4 (ISO/IEC 14496-12, 8.3.2): so many quarters clockwise."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40
    one = 1 << 16
    matrix = {1: (0, one, 0, -one, 0, 0, 0, 0, 1 << 30), 2: (-one, 0, 0, 0, -one, 0, 0, 0, 1 << 30)}[quarters]
    data[start : start + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(data)
