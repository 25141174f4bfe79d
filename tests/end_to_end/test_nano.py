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


def test_a_higher_motion_score_moves_more(executable: Executable) -> None:
    for score in ("2.5", "9"):
        prompts = "snow falling on pine trees", "ocean waves", "a campfire"
        executable("generate", *prompts, "-m", "nano", "--frames", "17", "--motion", score, "-o", score)
    slow, fast = (
        [float(np.abs(np.diff(frames_of(path).astype(int), axis=0)).mean()) for path in sorted(folder.glob("*.mp4"))]
        for folder in (executable.folder / "2.5", executable.folder / "9")
    )
    assert len(slow) == 3
    for little, much in zip(slow, fast, strict=True):
        assert much > 1.15 * little


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


def energy(frame: np.ndarray) -> float:
    """How sharp a picture is."""
    return float(sum(np.square(np.diff(frame.astype(float), axis=axis)).mean() for axis in (0, 1)))


def test_a_clip_larger_than_nano_makes_is_the_enlarged_one(executable: Executable) -> None:
    small = ("generate", "flowers", "-m", "nano", "--frames", "5", "--steps", "6", "--seed", "3")
    done = executable(*small, "--size", "288x512", "-o", "large.mp4", "--upscaler", "bicubic")
    assert "makes 144x256, which is enlarged to 288x512" in done.stderr
    executable(*small, "--size", "288x512", "-o", "sharp.mp4")
    executable(*small, "--size", "144x256", "-o", "small.mp4")
    large, sharp, made = (frames_of(executable.folder / f"{name}.mp4") for name in ("large", "sharp", "small"))
    assert large.shape == sharp.shape == (5, 288, 512, 3)
    for big, sharper, little in zip(large, sharp, made, strict=True):
        enlarged = np.asarray(Image.fromarray(little).resize((512, 288), Image.Resampling.BICUBIC))
        assert psnr(big, enlarged) > 30
        assert psnr(sharper, enlarged) > 20, "another picture"
        assert energy(sharper) > 1.1 * energy(big)


@pytest.mark.parametrize("upscaler", ["nano", "bicubic"])
def test_a_clip_that_was_enlarged_goes_on_without_a_step(executable: Executable, upscaler: str) -> None:
    options = ("clouds", "-m", "nano", "--steps", "6", "--upscaler", upscaler)
    executable("generate", *options, "--res", "240p", "--frames", "17", "-o", "clip.mp4")
    executable("extend", "clip.mp4", *options, "--by", "16", "-o", "longer.mp4")
    before, after = (frames_of(executable.folder / name) for name in ("clip.mp4", "longer.mp4"))
    assert after.shape == (33, *before.shape[1:])
    assert psnr(after[:17], before) > 35
    steps = np.abs(np.diff(after.astype(float), axis=0)).mean(axis=(1, 2, 3))
    assert steps[16] <= 1.2 * steps.max(where=np.arange(32) != 16, initial=0)
