"""What `probe` says of good, odd and broken files."""

from __future__ import annotations

import av
import numpy as np
import pytest
from media import greys, picture, save_video, turn
from PIL import Image

from sora_cli.data.probe import probe

BROKEN = {"num_frames": 0, "height": 0, "width": 0, "aspect_ratio": None, "fps": None, "resolution": None}


def facts(path, **options):
    found = probe(path, **options)
    return [found[name] for name in ("num_frames", "height", "width", "fps", "rotation", "codec", "counted", "error")]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "mov"])
def test_videos(tmp_path, suffix):
    path = tmp_path / f"clip:1.{suffix}"
    save_video(path, greys(12))
    assert facts(path) == [12, 32, 48, 24.0, 0, "h264", "decoded", None]
    found = probe(path)
    assert found["aspect_ratio"] == 32 / 48
    assert found["resolution"] == 32 * 48
    assert found["duration"] == pytest.approx(0.5, abs=0.05)
    fast = facts(path, fast=True)
    assert fast[:6] == [12, 32, 48, 24.0, 0, "h264"]
    assert fast[6] == ("packets" if suffix == "mkv" else "header")


def test_every_frame_counts_with_frames_that_come_late(tmp_path):
    path = tmp_path / "b.mp4"
    noise = np.random.default_rng(0).integers(0, 255, (70, 48, 64, 3), np.uint8)
    save_video(path, list(noise))  # x264 puts B frames in, which leave the decoder several at a time
    assert probe(path)["num_frames"] == 70


def test_variable_rate_and_rotation(tmp_path):
    path = tmp_path / "v.mp4"
    save_video(path, greys(4), times=[0, 1, 5, 6])
    turn(path, 1)
    found = probe(path)
    assert (found["num_frames"], found["height"], found["width"], found["rotation"]) == (4, 32, 48, 90)
    assert found["fps"] == pytest.approx(24 * 4 / 7, rel=0.2)


def test_pictures(tmp_path):
    path = tmp_path / "p.PNG"
    path.write_bytes(picture("red"))
    assert facts(path) == [1, 96, 128, None, 0, "png", "decoded", None]
    assert facts(path, as_video=True)[:4] == [1, 96, 128, None]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("CMYK", (20, 10)).save(tmp_path / "turned.jpg", exif=exif)
    assert facts(tmp_path / "turned.jpg")[:5] == [1, 10, 20, None, 90]


def test_animations_are_videos(tmp_path):
    frames = [Image.new("RGB", (16, 8), colour) for colour in ("red", "green", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=100)
    assert facts(tmp_path / "a.gif")[:4] == [3, 8, 16, 10.0]


@pytest.mark.parametrize(
    "name", ["empty.mp4", "text.mp4", "cut.mp4", "missing.mp4", "empty.png", "cut.png", "sound.mp4", ""]
)
def test_broken_files(tmp_path, name):
    path = tmp_path / name
    save_video(tmp_path / "good.mp4", greys(30, step=5))
    if name.startswith("cut"):
        good = (tmp_path / "good.mp4").read_bytes() if name.endswith("mp4") else picture("red")
        path.write_bytes(good[: len(good) // 3])
    elif name.startswith("empty"):
        path.write_bytes(b"")
    elif name.startswith("text"):
        path.write_text("no video")
    elif name.startswith("sound"):
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=48000)
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.sample_rate, silence.pts = 48000, 0
            container.mux(stream.encode(silence))
            container.mux(stream.encode())
    for found in (probe(path if name else ""), probe(path if name else "", fast=True)):
        assert {key: found[key] for key in BROKEN} == BROKEN
        assert found["error"]
