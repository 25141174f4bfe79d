"""Open-Sora 1.0 and 1.1 through the real code, with tiny checkpoints in the layout of the released ones.

Their autoencoder codes frame by frame, so a given frame looks the same wherever it is given; files lose a little.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from executable import frames_of, image_of, psnr
from image_tiny import make_table
from media import picture
from opensora_tiny import make_tiny_opensora_v1_0, make_tiny_opensora_v1_1

TINY = {"opensora-v1.0": make_tiny_opensora_v1_0, "opensora-v1.1": make_tiny_opensora_v1_1}
SHAPE = ("--size", "64x96", "--frames", "4", "--steps", "3", "--device", "cpu", "--dtype", "fp32")


@pytest.fixture(scope="module", params=list(TINY))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The arguments that name the model and its three tiny checkpoints."""
    return ["-m", request.param, *TINY[request.param](tmp_path_factory.mktemp("tiny")), *SHAPE]


def test_a_clip_and_a_picture(sora: Callable[..., Any], model: list[str]) -> None:
    done = sora("generate", "a waterfall", *model, "-o", "a.mp4")
    assert (done.code, done.out) == (0, "a.mp4\n"), done.err
    frames = frames_of(Path("a.mp4"))
    assert frames.shape == (4, 64, 96, 3)
    assert frames.std() > 1, "not one colour"
    stored = json.loads(Path("a.mp4.json").read_text())
    assert (stored["model"]["name"], stored["scheduler"]["name"]) == (model[1], "iddpm")
    assert all(len(stored[part]["weights"]) == 16 for part in ("model", "vae", "text_encoder"))
    assert sora("generate", "a waterfall", *model, "--frames", "1", "-o", "c.png").code == 0
    assert image_of(Path("c.png")).shape == (64, 96, 3)


def test_a_prompt_that_is_too_long_is_said(sora: Callable[..., Any], model: list[str]) -> None:
    words = "a red fox in the snow " * 60
    done = sora("generate", words, *model, "--frames", "1", "-o", "x.png")
    assert done.code == 0, done.err
    assert "tokens of a prompt are not read" in done.err


@pytest.mark.parametrize("model", ["opensora-v1.0"], indirect=True)
def test_scales_of_the_variant_change_the_clip(sora: Callable[..., Any], model: list[str]) -> None:
    for name, more in {"a": (), "b": ("--variant", "16x256-HQ")}.items():
        assert sora("generate", "a fox", *model, *more, "--frames", "1", "-o", f"{name}.png").code == 0
    assert (image_of(Path("a.png")) != image_of(Path("b.png"))).any()


@pytest.mark.parametrize("model", ["opensora-v1.1"], indirect=True)
def test_a_given_first_frame(sora: Callable[..., Any], model: list[str]) -> None:
    """Frames that are given go into the network as masks, and stay."""
    for name in ("x", "y"):
        assert sora("generate", name, *model, "--frames", "1", "-o", f"{name}.png").code == 0
    for name in ("x", "y"):
        done = sora("generate", "a fox", *model, "--first", f"{name}.png", "-o", f"{name}.mp4")
        assert done.code == 0, done.err
    first, other = (frames_of(Path(f"{name}.mp4")) for name in "xy")
    assert first.shape == (4, 64, 96, 3)
    assert all((one != another).any() for one, another in zip(first, other, strict=True)), "all frames see the first"


# --- what is given -----------------------------------------------------------------------------------------------

#: Rectified flow keeps given frames to the bit; iddpm of the released models changes them a little in its last step.
SAME = {"rectified_flow": 32.0, "iddpm": 17.0}
#: Other frames of these random networks are no closer.
OTHER = 14.0
MODES = {
    "copy": ("v.mp4", "0,0,0,0,8"),
    "end": ("v.mp4", "0,0,8,0,8"),
    "first": ("x.png", "0"),
    "other": ("y.png", "0"),
    "both": ("x.png;y.png", "0;0,1,0,-1,1"),
    "forward": ("v.mp4", "0,0,-4,0,4"),
    "backward": ("v.mp4", "0,0,0,-4,4"),
    "connected": ("v.mp4;v.mp4", "0,0,-3,0,3;0,1,0,-3,3"),
    "keyframes": ("x.png;y.png;v.mp4", "0;0,1,0,4,1;0,2,3,-1,1"),
    "kept": ("v.mp4", "0,0,0,0,8,0.0"),
    "edited": ("v.mp4", "0,0,0,0,8,0.6"),
    "anew": ("v.mp4", "0,0,0,0,8,1.0"),
}
LONG = ("--frames", "8", "--size", "64x64")


@pytest.fixture
def given(sora: Callable[..., Any], model: list[str]) -> None:
    """Two pictures and a video of 16 frames."""
    for name in ("x", "y"):
        assert sora("generate", name, *model, *LONG, "--frames", "1", "-o", f"{name}.png").code == 0
    assert sora("generate", "rain", *model, *LONG, "--frames", "16", "-o", "v.mp4").code == 0


@pytest.mark.parametrize("scheduler", list(SAME))
def test_every_way_of_giving_frames(sora: Callable[..., Any], model: list[str], given: None, scheduler: str) -> None:
    """The released grammar: pictures, parts of videos, several of them, to begin with, to end with and to change."""
    prompts = [
        f'a fox{{"reference_path": "{files}", "mask_strategy": "{strategy}"}}' for files, strategy in MODES.values()
    ]
    done = sora("generate", *prompts, "a fox", *model, *LONG, "--scheduler", scheduler, "-o", "made")
    assert done.code == 0, done.err
    made = {name: frames_of(Path(path)) for name, path in zip([*MODES, "plain"], done.out.splitlines(), strict=True)}
    assert all(frames.shape == (8, 64, 64, 3) for frames in made.values())
    same = SAME[scheduler]
    for name, place, source, frame in (
        ("both", 0, "first", 0),
        ("both", -1, "other", 0),
        ("keyframes", 0, "first", 0),
        ("keyframes", 4, "other", 0),
        ("keyframes", -1, "copy", 3),
        *(("forward", number, "end", 4 + number) for number in range(4)),
        *(("backward", 4 + number, "copy", number) for number in range(4)),
        *(("connected", number, "end", 5 + number) for number in range(3)),
        *(("connected", 5 + number, "copy", number) for number in range(3)),
    ):
        assert psnr(made[name][place], made[source][frame]) > same, (name, place)
    assert psnr(made["forward"][4:], made["end"][:4]) < OTHER, "the rest is new"
    assert psnr(made["backward"][:4], made["copy"][4:]) < OTHER
    assert (made["kept"] == made["copy"]).all()
    assert (made["anew"] == made["plain"]).all()
    assert (made["edited"] != made["copy"]).any()
    assert (made["edited"] != made["plain"]).any()


@pytest.mark.parametrize("scheduler", list(SAME))
def test_long_clips_and_named_ways(sora: Callable[..., Any], model: list[str], given: None, scheduler: str) -> None:
    """Loops that go on from the end of the one before, and what the commands call by name."""
    run = (*model, *LONG, "--scheduler", scheduler)
    text = '|0|a fox|2|snow{"reference_path": "v.mp4", "mask_strategy": "0,0,0,0,4"}'
    ways = {
        "loop": (("generate", text, "--segments", "3", "--overlap", "4"), 3 * (8 - 4) + 4),
        "reencoded": (("generate", text, "--segments", "3", "--overlap", "4", "--overlap-from", "frames"), 16),
        "changed": (("generate", text, "--segments", "2", "--overlap", "4", "--overlap-strength", "0.3"), 12),
        "i2v": (("i2v", "x.png", "a fox", "--last", "y.png"), 8),
        "copied": (("generate", "a fox", "--reference", "v.mp4", "--mask-strategy", "0,0,0,0,4"), 8),
        "edit": (("generate", "a fox", "--edit", "v.mp4", "--strength", "0.5"), 8),
    }
    made = {}
    for name, (arguments, frames) in ways.items():
        done = sora(*arguments, *run, "-o", f"{name}.mp4")
        assert done.code == 0, done.err
        made[name] = frames_of(Path(f"{name}.mp4"))
        assert len(made[name]) == frames
    assert psnr(made["loop"][:4], made["copied"][:4]) > SAME[scheduler]
    assert (made["reencoded"] != made["loop"]).any()
    for name, more in {"longer": (), "before": ("--backward",)}.items():
        extended = ("extend", "v.mp4", "a fox", *more, "--by", "0.5s", *model[:-10], "--scheduler", scheduler)
        done = sora(*extended, "--steps", "3", "--device", "cpu", "--dtype", "fp32", "-o", f"{name}.mp4")
        assert done.code == 0, done.err
        assert len(frames_of(Path(f"{name}.mp4"))) > 16


def test_given_frames_need_weights_that_know_them(sora: Callable[..., Any], tmp_path: Path) -> None:
    """The released weights of 1.0 make clips from text alone; those that one trains can learn more."""
    Path("x.png").write_bytes(picture("red"))
    done = sora("i2v", "x.png", "a fox", "-m", "opensora-v1.0", "--dry-run")
    assert done.code == 2
    assert "makes clips from text alone" in done.err
    assert "--weights RUN" in done.err


# --- what was trained --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["opensora-v1.0"], indirect=True)
@pytest.mark.parametrize(
    ("recipe", "scheduler"), [("v1.0-16x256-speed-rflow", "rectified_flow"), ("v1.0-16x256-speed", "iddpm")]
)
def test_a_recipe_and_its_result(
    sora: Callable[..., Any], model: list[str], tmp_path: Path, recipe: str, scheduler: str
) -> None:
    """What a run was trained with is kept with it and with what is exported, and used without being said."""
    parts = model[2:8]
    table = make_table(tmp_path / "clips", ("a fox", "snow", "rain", "fire"))
    small = ("--size", "64x64", "--frames", "8", "--batch-size", "2", "--workers", "0", "--device", "cpu")
    run = ("train", "--preset", recipe, *parts, "--data", str(table), *small, "--dtype", "fp32", "--run", "run")
    done = sora(*run, "--set", "run.wandb=false", "--steps", "3")
    assert done.code == 0, done.err
    assert sora("train", "export", "run", "-o", "exported", "--dtype", "fp32").code == 0
    for place in ("run", "exported", "exported/model.safetensors"):
        name = f"{place.replace('/', '-')}.mp4"
        done = sora("generate", "a fox", "--weights", place, *parts[2:], *SHAPE, "-o", name)
        assert done.code == 0, done.err
        assert "was trained with" not in done.err
        stored = json.loads(Path(f"{name}.json").read_text())
        assert (stored["model"]["name"], stored["scheduler"]["name"]) == ("opensora-v1.0", scheduler)
        assert stored["model"]["options"]["space_scale"] == 0.5
        assert (frames_of(Path(name)) == frames_of(Path("run.mp4"))).all()
    other = {"rectified_flow": "iddpm", "iddpm": "rectified_flow"}[scheduler]
    done = sora("generate", "a fox", "--weights", "run", *parts[2:], *SHAPE, "--scheduler", other, "-o", "x.mp4")
    assert done.code == 0, done.err
    assert f"sampling.scheduler is {other}, but run was trained with {scheduler}" in done.err
    done = sora("generate", "a fox", "--weights", "run", *parts[2:], *SHAPE, "-O", "space_scale=1", "-o", "y.mp4")
    assert "model.options.space_scale is 1.0, but run was trained with 0.5" in done.err


@pytest.mark.parametrize("model", ["opensora-v1.1"], indirect=True)
def test_a_stage_with_masks(sora: Callable[..., Any], model: list[str], tmp_path: Path) -> None:
    """1.1 with some frames given; its preset of sampling stays."""
    parts = model[2:8]
    table = make_table(tmp_path / "clips", ("a fox", "snow", "rain", "fire"))
    small = ("--size", "64x64", "--frames", "4", "--batch-size", "2", "--workers", "0", "--device", "cpu")
    masks = "objective.mask_ratios={image_head: 0.5, quarter_random: 0.5}"
    run = ("train", "-m", "opensora-v1.1", *parts, "--data", str(table), *small, "--dtype", "fp32", "--run", "run")
    done = sora(*run, "--set", masks, "--steps", "2")
    assert done.code == 0, done.err
    done = sora("generate", "a fox", "--weights", "run", *parts[2:], *SHAPE, "-o", "a.mp4")
    assert done.code == 0, done.err
    assert json.loads(Path("a.mp4.json").read_text())["scheduler"]["options"] == {"cfg_channel": 3}
