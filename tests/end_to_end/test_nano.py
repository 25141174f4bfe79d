"""The embedded model through the real executable, at a small size."""

from __future__ import annotations

import signal

import av
import numpy as np
import pytest
from executable import Executable, frames_of, psnr, stop_when
from PIL import Image

SMALL = ("-m", "nano", "--size", "96x168", "--steps", "6")
CLIP = (*SMALL, "--frames", "17")


@pytest.fixture
def waterfall(executable: Executable) -> bytes:
    """The bytes of one clip."""
    executable("generate", "a waterfall", *CLIP, "-o", "first.mp4")
    return (executable.folder / "first.mp4").read_bytes()


def test_a_clip_and_the_same_command_again(executable: Executable, waterfall: bytes) -> None:
    path = executable.folder / "first.mp4"
    frames = frames_of(path)
    assert frames.shape == (17, 96, 168, 3)
    with av.open(str(path)) as container:
        assert container.streams.video[0].average_rate == 24
    assert frames.std() > 5  # a picture, not one colour
    executable("generate", "a waterfall", *CLIP, "-o", "second.mp4")
    assert (executable.folder / "second.mp4").read_bytes() == waterfall


def test_killed_and_resumed(executable: Executable, waterfall: bytes) -> None:
    # With little to do per step, latents are kept after the last step at the latest: killed then, it only decodes.
    kept = executable.folder / "second.mp4.partial.safetensors"
    stop_when(executable, kept.exists, signal.SIGKILL, "generate", "a waterfall", *CLIP, "-o", "second.mp4")
    executable("generate", "a waterfall", *CLIP, "-o", "second.mp4")
    assert (executable.folder / "second.mp4").read_bytes() == waterfall


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_alone_and_in_a_batch(executable: Executable, dtype: str) -> None:
    options = (*SMALL, "--frames", "9", "--dtype", dtype)
    executable("generate", "a waterfall", "snow on pines at night", *options, "--batch-size", "2", "-o", "batch")
    executable("generate", "snow on pines at night", *options, "-o", "alone")
    alone, batched, other = (
        frames_of(executable.folder / name)
        for name in (
            "alone/snow-on-pines-at-night-42.mp4",
            "batch/snow-on-pines-at-night-42.mp4",
            "batch/a-waterfall-42.mp4",
        )
    )
    assert alone.shape == (9, 96, 168, 3)
    assert psnr(alone, batched) >= 50
    assert psnr(alone, other) < 40


def test_a_clip_larger_than_nano_makes_is_the_enlarged_one(executable: Executable) -> None:
    small = ("generate", "clouds", "-m", "nano", "--frames", "5", "--steps", "4", "--seed", "3")
    done = executable(*small, "--size", "288x512", "-o", "large.mp4")
    assert "makes 144x256, which is enlarged to 288x512" in done.stderr
    executable(*small, "--size", "144x256", "-o", "small.mp4")
    large, made = (frames_of(executable.folder / name) for name in ("large.mp4", "small.mp4"))
    assert large.shape == (5, 288, 512, 3)
    for big, little in zip(large, made, strict=True):
        enlarged = np.asarray(Image.fromarray(little).resize((512, 288), Image.Resampling.BICUBIC))
        assert psnr(big, enlarged) > 30
