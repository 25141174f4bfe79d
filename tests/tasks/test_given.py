"""Reading references: their frames in the time of the clip, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from media import greys, save_video
from PIL import Image

from sora_cli.errors import SoraError
from sora_cli.tasks.given import count_frames, load_reference
from sora_cli.video.clips import changes_in_clip, size_and_rate

SIZE = (32, 48)
VIDEO, VARIABLE, MOVING, STILL = (Path(name) for name in ("even.mp4", "uneven.mp4", "moving.gif", "still.png"))


@pytest.fixture(autouse=True)
def references() -> None:
    save_video(VIDEO, greys(6), sound=True)
    save_video(VARIABLE, greys(3), [0, 2, 12])
    shades = [Image.new("RGB", (48, 32), (10 * level,) * 3) for level in (1, 2, 3)]
    shades[0].save(MOVING, save_all=True, append_images=shades[1:], duration=[100, 300, 200])
    shades[2].save(STILL)


def levels(pixels: torch.Tensor) -> list[int]:
    """Which grey of `greys` each frame is."""
    means = (pixels[0, :, :, 4:-4, 4:-4].mean(dim=(0, 2, 3)) + 1) * 127.5
    return [round(value) for value in (means / 10).tolist()]


def test_frames_of_a_constant_rate_are_taken_as_they_come() -> None:
    for fps in (12.0, 24.0, 30.0):
        assert count_frames(VIDEO, fps) == 6
        assert levels(load_reference(VIDEO, SIZE, 100, fps)) == [1, 2, 3, 4, 5, 6]
    assert levels(load_reference(VIDEO, SIZE, 4, 24.0)) == [1, 2, 3, 4]
    assert levels(load_reference(VIDEO, SIZE, 1)) == [1]


def test_frames_of_a_variable_rate_are_chosen_by_time() -> None:
    count = count_frames(VARIABLE, 24.0)
    found = levels(load_reference(VARIABLE, SIZE, 100, 24.0))
    assert found[:13] == [1] * 2 + [2] * 10 + [3]
    assert len(found) == count
    assert levels(load_reference(VARIABLE, SIZE, 3, 12.0)) == [1, 2, 2]


def test_animations_keep_their_time() -> None:
    assert count_frames(MOVING, 10.0) == 6
    assert levels(load_reference(MOVING, SIZE, 100, 10.0)) == [1, 2, 2, 2, 3, 3], "the last one is as long as it says"
    assert levels(load_reference(MOVING, SIZE, 1)) == [1]
    assert torch.equal(load_reference(STILL, SIZE, 1), load_reference(STILL, SIZE, 9, 24.0))


def test_what_is_said() -> None:
    assert changes_in_clip(STILL, 24) == []
    assert changes_in_clip(VIDEO, 24) == ["even.mp4 has sound; the clip has none"]
    assert changes_in_clip(VIDEO, 30)[0] == (
        "even.mp4 has 24 frames a second, and the clip 30; its frames are taken as they come"
    )
    assert changes_in_clip(VARIABLE, 24) == [
        "uneven.mp4 has a variable frame rate; its frames are taken by time, 24 a second"
    ]
    assert changes_in_clip(MOVING, 24) == ["moving.gif is an animation; its frames are taken by time, 24 a second"]


def test_size_and_rate(capsys: pytest.CaptureFixture[str]) -> None:
    assert size_and_rate(VIDEO) == ("32x48", 24.0)
    assert size_and_rate(MOVING) == ("32x48", pytest.approx(5.0))
    size_and_rate(VARIABLE)
    assert capsys.readouterr().err == "", "what happens to its frames is said when they are taken"


def test_damaged_files(tmp_path: Path) -> None:
    STILL.write_bytes(STILL.read_bytes()[:60])
    with pytest.raises(SoraError, match=r"still.png: it cannot be decoded"):
        load_reference(STILL, SIZE, 1)
    MOVING.write_bytes(MOVING.read_bytes()[:40])
    with pytest.raises(SoraError, match=r"moving.gif: it cannot be decoded"):
        load_reference(MOVING, SIZE, 9, 24.0)
