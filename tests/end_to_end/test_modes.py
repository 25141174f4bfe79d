"""Pictures, videos and loops on nano: figures of what is kept, where it joins, and what is said before it is loaded.

Run in this process, so that the libraries are loaded once.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from executable import frames_of, image_of, psnr
from opensora_tiny import SHAPE, make_tiny_opensora
from PIL import Image

from sora_cli.video.io import write_video

NANO = ("-m", "nano", "--steps", "6", "--size", "96x160")
CLOUDS = "clouds in a blue sky"
Sora = Callable[..., object]


@pytest.fixture
def make(sora: Sora) -> Callable[..., np.ndarray]:
    """Run `sora`, which must work, and give the frames of what it made."""

    def run(*arguments: str) -> np.ndarray:
        found = sora(*arguments, "--overwrite", "-o", "made.mp4")
        assert found.code == 0, found.err
        return frames_of(Path("made.mp4"))

    return run


def keep(frames: np.ndarray, name: str) -> np.ndarray:
    """The last frame as a picture, as it is read again."""
    Image.fromarray(frames[-1]).save(name)
    return image_of(Path(name))


def changes(frames: np.ndarray) -> np.ndarray:
    """Mean difference of each frame from the one before, the first from the last."""
    return np.abs(frames.astype(float) - np.roll(frames, 1, axis=0).astype(float)).mean(axis=(1, 2, 3))


def floor_of(sora: Sora, picture: str) -> float:
    """PSNR of a picture that was coded and decoded."""
    return float(json.loads(sora("vae", "eval", picture, "--vae", "nano", "--json").out)[0]["psnr"])


def test_pictures_are_where_they_belong(sora: Sora, make: Callable[..., np.ndarray]) -> None:
    """The first frame to the accuracy of the autoencoder; later ones share their latent frame with others."""
    a = keep(make("generate", CLOUDS, *NANO, "--frames", "9"), "a.png")
    b = keep(make("generate", "sunset over the mountains", *NANO, "--frames", "9"), "b.png")
    start = make("i2v", "a.png", CLOUDS, *NANO, "--frames", "25")
    assert psnr(start[0], a) > floor_of(sora, "a.png") - 2
    assert psnr(start[-1], b) < 12
    both = make("generate", CLOUDS, "--connect", "a.png", "b.png", *NANO, "--frames", "25")
    assert psnr(both[0], a) > floor_of(sora, "a.png") - 2
    assert psnr(both[-1], b) > 31
    assert (both == make("i2v", "a.png", CLOUDS, "--last", "b.png", *NANO, "--frames", "25")).all()
    middle = make("i2v", "a.png", CLOUDS, "--keyframe", "b.png@12", *NANO, "--frames", "25")
    assert psnr(middle[12], b) > 23


def test_loops_close(sora: Sora, make: Callable[..., np.ndarray]) -> None:
    """From the last frame to the first it is hardly further than elsewhere in the clip."""
    run = ("generate", "ocean waves at sunset", *NANO, "--frames", "32")
    plain, loop = changes(make(*run)), changes(make(*run, "--seamless"))
    assert plain[0] > 2.5 * plain[1:].max()
    assert loop[0] < 1.6 * loop[1:].max()
    assert loop[0] < 0.45 * plain[0]
    assert len(loop) == 32
    slow, fast = (changes(make(*run, "--seamless", "--motion", score)).mean() for score in ("2.5", "9"))
    assert fast > 1.15 * slow
    a = keep(make("generate", CLOUDS, *NANO, "--frames", "9"), "a.png")
    run = ("i2v", "a.png", CLOUDS, *NANO, "--frames", "32")
    plain, found = make(*run), make(*run, "--seamless")
    loop = changes(found)
    assert loop[0] < 1.25 * loop[1:].max()
    assert loop[0] < 0.33 * changes(plain)[0]
    assert loop[1:].mean() > 0.8 * changes(plain)[1:].mean(), "it moves as much"
    assert psnr(found[0], a) > floor_of(sora, "a.png") - 2
    assert (make(*run, "--seamless", "--batch-size", "2") == found).all()


def test_a_clip_leads_from_video_to_video(make: Callable[..., np.ndarray]) -> None:
    whole = make("generate", CLOUDS, *NANO, "--frames", "33")
    Path("made.mp4").rename("a.mp4")
    found = make("generate", CLOUDS, "--connect", "a.mp4", "a.mp4", "-m", "nano", "--steps", "6", "--frames", "24")
    assert found.shape == (33 + 24 + 33, *whole.shape[1:]), "in the size of the video"
    assert psnr(found[:33], whole) > 38
    assert psnr(found[-33:], whole) > 38
    steps = changes(found)
    elsewhere = np.delete(steps, [0, 33, 57]).max()
    assert steps[33] < elsewhere
    assert steps[57] < elsewhere
    Image.fromarray(whole[0]).save("first.png")
    led = make("generate", CLOUDS, "--connect", "first.png", "a.mp4", "-m", "nano", "--steps", "2", "--frames", "25")
    assert len(led) == 25 + 33
    assert psnr(led[0], whole[0]) > 35
    assert psnr(led[25:], whole) > 38


def test_what_is_changed_grows_with_the_strength(make: Callable[..., np.ndarray]) -> None:
    whole = make("generate", CLOUDS, *NANO, "--frames", "17")
    Path("made.mp4").rename("a.mp4")
    kept = [
        psnr(make("generate", "sunset over the mountains", "--edit", "a.mp4", "--strength", strength, *NANO,
                  "--frames", "17"), whole)
        for strength in ("0.2", "0.5", "0.8")
    ]  # fmt: skip
    assert kept[0] > kept[1] + 6
    assert kept[1] > kept[2] + 3


def test_the_released_kind(make: Callable[..., np.ndarray]) -> None:
    """Pieces of 17 frames that are coded by themselves."""
    run = (*SHAPE[:4], "--steps", "2", *make_tiny_opensora(Path("weights")))
    moving("a.mp4", 24)
    assert len(make("generate", "a fox", "--seamless", *run, "--frames", "34")) == 34
    assert len(make("generate", "a fox", "--connect", "a.mp4", "a.mp4", *run, "--frames", "17")) == 24 + 17 + 24


def moving(path: str, num_frames: int, *, size: tuple[int, int] = (96, 160), fps: float = 12.0) -> None:
    """A small video of moving bars."""
    height, width = size
    bars = np.arange(width)[None, :] + 4 * np.arange(num_frames)[:, None]
    frames = np.broadcast_to((bars % 64 * 4)[:, None, :, None], (num_frames, height, width, 3)).astype(np.uint8)
    write_video(Path(path), iter([np.ascontiguousarray(frames)]), fps, {})


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (("extend", "short.mp4", CLOUDS), "short.mp4 has 9 frames, fewer than the overlap of 17", 2),
        (("generate", CLOUDS, "--connect", "long.mp4", "short.mp4"), "short.mp4 has 9 frames, fewer than the over", 2),
        (("i2v", "broken.png", CLOUDS), "broken.png: it cannot be decoded", 1),
        (("generate", CLOUDS, "--edit", "broken.mp4"), "broken.mp4: it cannot be decoded", 1),
        (("generate", CLOUDS, "--reference", "long.mp4", "--mask-strategy", "0;0,1"), "and there are 1", 2),
        (("generate", CLOUDS, "--reference", "short.mp4", "--mask-strategy", "0,0,5"), "lies outside", 2),
        (("generate", CLOUDS, "--reference", "long.mp4", "--mask-strategy", "0;0,x"), "  0;0,x\n      ^\n", 2),
        (("generate", CLOUDS, "--edit", "long.mp4", "--seamless"), "--seamless and --edit do not go together", 2),
        (("extend", "tiny.mp4", CLOUDS), "shape.size 64x64 comes from the video tiny.mp4", 2),
        (("extend", "huge.mp4", CLOUDS), "--res NAME or --size HxW fits it to another size", 2),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_loaded(sora: Sora, arguments, message: str, code: int) -> None:
    moving("long.mp4", 24)
    moving("short.mp4", 9)
    moving("tiny.mp4", 24, size=(64, 64))
    moving("huge.mp4", 24, size=(96, 1600))
    Path("broken.png").write_bytes(b"no picture")
    Path("broken.mp4").write_bytes(b"no video")
    found = sora(*arguments, "-m", "nano", "-o", "made.mp4")
    assert found.code == code
    assert message in found.err
    assert "loading" not in found.err
    assert not Path("made.mp4").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--edit", "long.mp4", "--frames", "17"), "long.mp4 has 24 frames, more than the clip"),
        (("--edit", "long.mp4"), "fewer than the clip: the rest is made anew; --frames 24 is its length"),
        (("--reference", "long.mp4;a.png", "--mask-strategy", "0"), "not used: a.png"),
        (("--first", "a.png", "--backward"), "--backward has no effect without --extend"),
        (("--connect", "long.mp4", "long.mp4", "--len", "2s"), "so it has 52 instead of 51"),
        (("--seamless", "--len", "2s"), "so it has 48 instead of 51"),
    ],
)
def test_what_has_no_effect_is_said(sora: Sora, arguments, message: str) -> None:
    moving("long.mp4", 24)
    Image.new("RGB", (160, 96), "teal").save("a.png")
    found = sora("generate", CLOUDS, *arguments, "-m", "nano", "--dry-run")
    assert found.code == 0, found.err
    assert message in found.err


@pytest.mark.parametrize(
    "arguments", [("--edit", "long.mp4"), ("--extend", "long.mp4"), ("--connect", "a.png", "long.mp4")]
)
def test_a_video_keeps_its_rate(sora: Sora, arguments) -> None:
    moving("long.mp4", 24)
    Image.new("RGB", (160, 96), "teal").save("a.png")
    shape = json.loads(sora("generate", CLOUDS, *arguments, "-m", "nano", "--dry-run", "--json").out)["shape"]
    assert (shape["fps"], shape["save_fps"]) == (12.0, 12.0)
    asked = sora("generate", CLOUDS, *arguments, "-m", "nano", "--fps", "30", "--dry-run", "--json")
    assert json.loads(asked.out)["shape"]["save_fps"] == 30.0


def test_settings_find_their_pictures_from_another_folder(sora: Sora, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (160, 96), "teal").save("a.png")
    run = ("-m", "nano", "--steps", "1", "--size", "96x160", "--frames", "5")
    assert sora("generate", 'clouds{"reference_path": "a.png"}', "--keyframe", "a.png@4", *run, "-o", "x.mp4").code == 0
    other = Path("other")
    other.mkdir()
    monkeypatch.chdir(other)
    again = sora("generate", "--from", "../x.mp4", "-o", "y.mp4")
    assert again.code == 0, again.err
    assert (frames_of(Path("y.mp4")) == frames_of(Path("../x.mp4"))).all()
