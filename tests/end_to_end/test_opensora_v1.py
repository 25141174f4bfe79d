"""Open-Sora 1.0 and 1.1 through the real code, with tiny checkpoints in the layout of the released ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from executable import frames_of, image_of
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
