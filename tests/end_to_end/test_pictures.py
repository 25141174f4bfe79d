"""`sora i2v` and references for real, on the embedded model and on a tiny one of the released kind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from executable import Executable, frames_of, psnr
from opensora_tiny import SHAPE, make_tiny_opensora
from PIL import Image

NANO = ("-m", "nano", "--steps", "4", "--frames", "17")


@pytest.fixture
def executable(here: Executable) -> Executable:
    return here


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test leaves what all begin with."""
    return tmp_path_factory.mktemp("made")


@pytest.fixture
def pictures(executable: Executable, made: Path) -> list[np.ndarray]:
    """Two clips that nano made, and their first frames as pictures."""
    prompts = {"clouds": "clouds in a blue sky", "sunset": "sunset over the mountains"}
    for name, prompt in prompts.items():
        kept = made / f"{name}.mp4"
        if not kept.is_file():
            executable("generate", prompt, *NANO, "-o", str(kept))
        shutil.copy(kept, executable.folder)
    frames = [frames_of(executable.folder / f"{name}.mp4")[0] for name in prompts]
    for name, picture in zip(("first", "last"), frames, strict=True):
        Image.fromarray(picture).save(executable.folder / f"{name}.png")
    return frames


def test_a_clip_starts_and_ends_with_its_pictures(executable: Executable, pictures: list[np.ndarray]) -> None:
    first, last = pictures
    floor = json.loads(executable("vae", "eval", "first.png", "--vae", "nano", "--json").stdout)[0]["psnr"]
    executable("i2v", "first.png", "clouds in a blue sky", *NANO, "-o", "start.mp4")
    start = frames_of(executable.folder / "start.mp4")
    assert psnr(start[0], first) > floor - 2
    executable("i2v", "first.png", "clouds", "--last", "last.png", *NANO, "-o", "both.mp4")
    both = frames_of(executable.folder / "both.mp4")
    assert psnr(both[0], first) > floor - 2
    assert psnr(both[-1], last) > psnr(start[-1], last) + 5
    executable("i2v", "first.png", "clouds", "--keyframe", "last.png@8", *NANO, "-o", "middle.mp4")
    middle = frames_of(executable.folder / "middle.mp4")
    assert psnr(middle[8], last) > psnr(start[8], last) + 5


def test_the_same_by_the_grammar(executable: Executable, pictures: list[np.ndarray]) -> None:
    executable("i2v", "first.png", "clouds", *NANO, "-o", "named.mp4")
    executable("generate", "clouds", "--reference", "first.png", "--mask-strategy", "0", *NANO, "-o", "flags.mp4")
    inline = 'clouds{"reference_path": "first.png", "mask_strategy": "0"}'
    executable("generate", inline, *NANO, "-o", "inline.mp4")
    made = [frames_of(executable.folder / f"{name}.mp4") for name in ("named", "flags", "inline")]
    assert (made[0] == made[1]).all()
    assert (made[0] == made[2]).all()
    again = executable("generate", "--from", "named.mp4", "-o", "again.mp4", "clouds")
    assert (frames_of(executable.folder / again.stdout.strip()) == made[0]).all()
    record = json.loads(executable("show", "named.mp4", "--json").stdout)
    assert len(record["given"]["references"]) == 1
    executable("generate", "--from", "inline.mp4", "-o", "again2.mp4", "clouds")
    assert (frames_of(executable.folder / "again2.mp4") == made[0]).all(), "its own references are stored"
    Image.fromarray(pictures[1]).save(executable.folder / "first.png")
    changed = executable("i2v", "first.png", "clouds", *NANO, "-o", "named.mp4", code=2)
    assert "named.mp4" in changed.stderr, "another picture of the same name is another clip"


def test_a_video_goes_on(executable: Executable, pictures: list[np.ndarray]) -> None:
    """The last three latent frames of a clip become the first three of the next one."""
    strategy = ("--reference", "clouds.mp4", "--mask-strategy", "0,0,-3,0,3")
    executable("generate", "clouds in a blue sky", *strategy, *NANO, "-o", "next.mp4")
    found = frames_of(executable.folder / "next.mp4")
    before = frames_of(executable.folder / "clouds.mp4")
    assert psnr(found[2:9], before[10:17]) > 20
    executable("generate", "clouds", "--edit", "clouds.mp4", "--strength", "0.9", *NANO, "-o", "named.mp4")
    executable(
        "generate", "clouds", "--reference", "clouds.mp4", "--mask-strategy", "0,0,0,0,5,0.9", *NANO, "-o", "edit.mp4"
    )
    assert (frames_of(executable.folder / "named.mp4") == frames_of(executable.folder / "edit.mp4")).all()
    strengths = [0.0, 0.5, 0.9, 1.0]
    for strength in strengths:
        executable(
            "generate", "sunset", "--edit", "clouds.mp4", "--strength", str(strength), *NANO, "-o", f"{strength}.mp4"
        )
    made = [frames_of(executable.folder / f"{strength}.mp4") for strength in strengths]
    kept = [psnr(frames, before) for frames in made]
    assert kept == sorted(kept, reverse=True), "from a copy to something new"
    assert kept[0] > 25
    executable("generate", "sunset", *NANO, "-o", "new.mp4")
    assert (made[-1] == frames_of(executable.folder / "new.mp4")).all()
    assert psnr(frames_of(executable.folder / "edit.mp4"), before) < kept[0] - 3


@pytest.mark.parametrize("way", ["forward", "backward"])
def test_extending(executable: Executable, pictures: list[np.ndarray], way: str) -> None:
    """The video is whole in the result, the new part is as long as asked, and nothing jumps where they meet."""
    executable("generate", "clouds in a blue sky", "-m", "nano", "--steps", "8", "--frames", "33", "-o", "whole.mp4")
    run = ("extend", "whole.mp4", "clouds in a blue sky", "-m", "nano", "--steps", "8", "--by", "1s")
    run = (*run, "--backward") if way == "backward" else run
    executable(*run, "-o", "longer.mp4")
    before, found = (frames_of(executable.folder / f"{name}.mp4") for name in ("whole", "longer"))
    assert found.shape == (33 + 24, *before.shape[1:])
    own, seam = (found[:33], 33) if way == "forward" else (found[24:], 24)
    assert psnr(own, before) > 30
    steps = np.abs(np.diff(found.astype(float), axis=0)).mean(axis=(1, 2, 3))
    assert steps[seam - 1] < np.delete(steps, seam - 1).max()
    record = json.loads(executable("show", "longer.mp4", "--json").stdout)
    assert record["given"]["extension"]["new"] == 24
    again = executable(*run, "-o", "longer.mp4")
    assert again.stdout == "longer.mp4\n", "it is there already"


def test_every_shape_takes_pictures(executable: Executable, pictures: list[np.ndarray]) -> None:
    """Also those whose tables have sides that no latent grid divides."""
    small = ("-m", "nano", "--steps", "1", "--frames", "1")
    for aspect in ("4:3", "1:1", "9:16"):
        name = f"{aspect.replace(':', '-')}.png"
        executable("i2v", "first.png", "clouds", *small, "--res", "144p", "--aspect-ratio", aspect, "-o", name)
    executable("extend", "clouds.mp4", "clouds", "-m", "nano", "--steps", "1", "--by", "0.5s", "--res", "144p",
               "--aspect-ratio", "4:3", "-o", "long.mp4")  # fmt: skip
    assert len(frames_of(executable.folder / "long.mp4")) == 17 + 12


def test_what_is_read_is_not_written(executable: Executable, pictures: list[np.ndarray]) -> None:
    content = (executable.folder / "clouds.mp4").read_bytes()
    (executable.folder / "x.partial.mp4").write_bytes(content)
    for arguments in (
        ("extend", "clouds.mp4", "clouds", "-m", "nano", "-o", "clouds.mp4", "--overwrite"),
        ("generate", "clouds", "--edit", "clouds.mp4", *NANO, "-o", "clouds.mp4", "--overwrite"),
        ("extend", "x.partial.mp4", "clouds", "-m", "nano", "-o", "x.mp4"),
    ):
        failed = executable(*arguments, code=2)
        assert "is made from" in failed.stderr
    assert (executable.folder / "clouds.mp4").read_bytes() == content
    assert (executable.folder / "x.partial.mp4").read_bytes() == content


def test_what_cannot_be_extended(executable: Executable, pictures: list[np.ndarray]) -> None:
    short = ("generate", "clouds", *NANO[:-2], "--frames", "9", "-o", "short.mp4")
    executable(*short)
    for more, message in (
        (("short.mp4", "clouds", "-m", "nano"), "short.mp4 has 9 frames, fewer than the overlap of 17"),
        (("clouds.mp4", "clouds", "-m", "nano", "--overlap", "6"), "near it: 5 or 9"),
        (("clouds.mp4", "clouds", "-m", "nano", "--by", "60s"), "frames do not fit"),
        (("absent.mp4", "clouds"), "there is no picture or video absent.mp4"),
    ):
        failed = executable("extend", *more, "-o", "out.mp4", code=2)
        assert message in failed.stderr, failed.stderr
        assert not (executable.folder / "out.mp4").exists()


def test_the_released_kind(executable: Executable, pictures: list[np.ndarray]) -> None:
    """51 frames in three pieces: with align 5 a picture for the end lands on the first latent of the last piece."""
    weights = make_tiny_opensora(executable.folder / "weights")
    run = ("generate", "a fox", *SHAPE, *weights, "--frames", "51")
    executable(*run, "-o", "plain.mp4")
    executable(*run, "--reference", "first.png;last.png", "--mask-strategy", "0;0,1,0,-1,1", "-o", "both.mp4")
    plain, both = (frames_of(executable.folder / f"{name}.mp4").astype(int) for name in ("plain", "both"))
    assert plain.shape == both.shape
    assert (plain[0] != both[0]).any()


def test_what_is_wrong(executable: Executable, pictures: list[np.ndarray]) -> None:
    (executable.folder / "broken.png").write_bytes(b"not a picture")
    for arguments, message, code in (
        (("i2v", "absent.png", "clouds"), "there is no picture or video absent.png", 2),
        (("i2v", "broken.png", "clouds", *NANO), "broken.png: it cannot be decoded", 1),
        (("generate", "clouds", "--mask-strategy", "0"), "has no reference", 2),
        (("generate", "clouds", "--reference", "first.png", "--mask-strategy", "0,1"), "names reference 1", 2),
        (("i2v", "first.png"), "a prompt is needed", 2),
        (("i2v", "first.png", "a fox", "-m", "tiny"), "makes clips from text alone", 2),
    ):
        failed = executable(*arguments, "-o", "out.mp4", code=code)
        assert message in failed.stderr, failed.stderr
        assert "Traceback" not in failed.stderr
        assert not (executable.folder / "out.mp4").exists()
