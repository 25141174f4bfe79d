"""DiT, Latte and PixArt through the real code: released layouts, training on labels or captions, and its results."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from executable import frames_of, image_of
from image_tiny import CLIP_WIDTH, make_table, make_tiny_image_model

SMALL = ("--size", "64x64", "--device", "cpu")
TRAIN = ("--device", "cpu", "--dtype", "fp32", "--size", "64x64", "--batch-size", "2", "--workers", "0")
CAPTIONS = ("a fox", "a cat in the snow", "rain", "fire over water")


def losses(run: str) -> list[float]:
    return [json.loads(line)["loss"] for line in Path(run, "metrics.jsonl").read_text().splitlines() if "loss" in line]


def trained_with(run: str, step: int) -> dict[str, Any]:
    return dict(json.loads(Path(run, f"step-{step}", "config.json").read_text())["trained_with"])


@pytest.mark.parametrize(("scheduler", "dtype"), [("dpm-solver", "bf16"), ("iddpm", "fp32"), ("rflow", "bf16")])
@pytest.mark.parametrize("model", ["pixart-alpha-256", "pixart-alpha-1024", "pixart-sigma-512"])
def test_a_picture_of_a_text(sora: Callable[..., Any], tmp_path: Path, model: str, scheduler: str, dtype: str) -> None:
    tiny = make_tiny_image_model(tmp_path / "tiny", model)
    run = ("-m", model, *tiny, *SMALL, "--steps", "3", "--dtype", dtype, "--scheduler", scheduler)
    for name, text in {"a": "a fox", "b": "rain over a long river"}.items():
        done = sora("generate", text, *run, "-o", f"{name}.png")
        assert (done.code, done.out) == (0, f"{name}.png\n"), done.err
    assert image_of(Path("a.png")).shape == (64, 64, 3)
    assert (image_of(Path("a.png")) != image_of(Path("b.png"))).any()


@pytest.mark.parametrize("scheduler", ["iddpm", "dpm-solver", "rflow"])
@pytest.mark.parametrize("model", ["latte-ucf101", "dit-xl-2-256"])
def test_a_class_in_bfloat16(sora: Callable[..., Any], tmp_path: Path, model: str, scheduler: str) -> None:
    """The numbers of classes are whole whatever the network computes in."""
    tiny = make_tiny_image_model(tmp_path / "tiny", model)
    run = ("-m", model, *tiny, *SMALL, "--frames", "1", "--steps", "3", "--dtype", "bf16", "--scheduler", scheduler)
    done = sora("generate", "97", "98", *run, "-o", "made")
    assert done.code == 0, done.err
    first, second = (image_of(Path(path)) for path in done.out.splitlines())
    assert (first != second).any()


@pytest.mark.parametrize(
    ("model", "frames", "labels", "by_name"),
    [
        ("latte-ucf101", 4, ("0", "41", "7", "HorseRiding"), ("41", "HorseRiding")),
        ("dit-xl-2-256", 1, ("0", "1", "7", "golden retriever"), ("1", "goldfish")),
    ],
)
def test_training_on_labels(
    sora: Callable[..., Any], tmp_path: Path, model: str, frames: int, labels: tuple[str, ...], by_name: tuple[str, str]
) -> None:
    """In two goes as in one, and what comes out makes a clip of a class, by its number or its name."""
    tiny = make_tiny_image_model(tmp_path / "tiny", model)
    table = make_table(tmp_path / "clips", labels)
    run = ("train", "-m", model, *tiny, "--data", str(table), *TRAIN, "--frames", str(frames), "--log-every", "1")
    for name, goes in {"whole": (4,), "parts": (2, 4)}.items():
        for steps in goes:
            done = sora(*run, "--run", name, "--steps", str(steps), "--lr", "1e-3")
            assert done.code == 0, done.err
    assert "going on after update 2" in done.err
    assert losses("parts") == losses("whole")
    files = [Path(name, "step-4", "model.safetensors").read_bytes() for name in ("whole", "parts")]
    assert files[0] == files[1]
    made = {}
    for place in ("whole", str(tmp_path / "tiny" / "model")):
        for number, text in enumerate(by_name):
            name = f"{Path(place).name}-{number}.{'png' if frames == 1 else 'mp4'}"
            shape = (*SMALL, "--frames", str(frames), "--steps", "3", "--dtype", "fp32")
            named = () if place == "whole" else ("-m", model)
            done = sora("generate", text, *named, "--weights", place, *tiny[2:], *shape, "-o", name)
            assert done.code == 0, done.err
            made[Path(place).name, number] = (image_of if frames == 1 else frames_of)(Path(name))
    assert (made["whole", 0] == made["whole", 1]).all(), "the same class"
    assert (made["whole", 0] != made["model", 0]).any(), "it has learned"
    wrong = sora("generate", "green ideas", "--weights", "whole", *tiny[2:], *SMALL)
    assert (wrong.code, "there is no class of" in wrong.err) == (2, True)


def test_wrong_labels_are_said(sora: Callable[..., Any], tmp_path: Path) -> None:
    tiny = make_tiny_image_model(tmp_path / "tiny", "latte-ucf101")
    table = make_table(tmp_path / "clips", ("0", "500"))
    run = ("train", "-m", "latte-ucf101", *tiny, "--data", str(table), *TRAIN, "--frames", "4", "--steps", "1")
    done = sora(*run)
    assert done.code == 2, done.err
    assert "there is no class of UCF101 500" in done.err


@pytest.mark.parametrize("recipe", ["dit-16x256", "latte-16x256"])
def test_captions_from_the_weights_of_classes(sora: Callable[..., Any], tmp_path: Path, recipe: str) -> None:
    """The recipe starts from the network of classes, whose labels are left out."""
    changes = {"condition": "text", "caption_channels": CLIP_WIDTH, "no_temporal_pos_emb": False}
    tiny = make_tiny_image_model(tmp_path / "tiny", "dit-xl-2-256", **changes)
    table = make_table(tmp_path / "clips", CAPTIONS)
    run = ("train", "--preset", recipe, *tiny, "--data", str(table), *TRAIN, "--frames", "4", "--run", "run")
    done = sora(*run, "--steps", "2")
    assert done.code == 0, done.err
    assert trained_with("run", 2)["model.text_encoder"] == "clip-vit-base-patch32"
    shape = (*SMALL, "--frames", "4", "--steps", "3")
    for name, text in {"a": "a fox", "b": "snow"}.items():
        done = sora("generate", text, "--weights", "run", *tiny[2:], *shape, "-o", f"{name}.mp4")
        assert done.code == 0, done.err
    stored = json.loads(Path("a.mp4.json").read_text())
    assert (stored["model"]["name"], stored["scheduler"]["name"]) == (f"{recipe.partition('-')[0]}-text", "dpm-solver")
    assert (frames_of(Path("a.mp4")) != frames_of(Path("b.mp4"))).any()


def test_classes_do_not_go_with_captions(sora: Callable[..., Any], tmp_path: Path) -> None:
    tiny = make_tiny_image_model(tmp_path / "tiny", "dit-xl-2-256", condition="text", caption_channels=CLIP_WIDTH)
    table = make_table(tmp_path / "clips", ("0", "1"))
    more = ("--text-encoder", "imagenet-classes", "--frames", "1", "--steps", "1")
    done = sora("train", "-m", "dit-text", *tiny[:4], "--data", str(table), *TRAIN, *more)
    assert done.code == 2
    assert "the text encoder imagenet-classes gives numbers of classes" in done.err


def test_pictures_with_rectified_flow(sora: Callable[..., Any], tmp_path: Path) -> None:
    """The recipe image-rflow of 1.1: longer captions than PixArt-alpha has; sampled as it was trained."""
    tiny = make_tiny_image_model(tmp_path / "tiny", "pixart-alpha-256")
    table = make_table(tmp_path / "clips", CAPTIONS)
    done = sora(
        "train", "--preset", "v1.1-image-rflow", *tiny, "--data", str(table), *TRAIN, "--run", "run", "--steps", "2"
    )
    assert done.code == 0, done.err
    config = json.loads(Path("run/step-2/config.json").read_text())
    assert (config["model_max_length"], config["trained_with"]["sampling.scheduler"]) == (200, "rectified_flow")
    done = sora("generate", "a fox", "--weights", "run", *tiny[2:], *SMALL, "--steps", "3", "-o", "a.png")
    assert done.code == 0, done.err
    stored = json.loads(Path("a.png.json").read_text())
    assert (stored["scheduler"]["name"], stored["text_encoder"]["name"]) == ("rectified_flow", "t5-v1.1-xxl-200")
    done = sora("generate", "a fox", "--weights", "run", *tiny[2:], *SMALL, "--scheduler", "dpm-solver", "-o", "b.png")
    assert "sampling.scheduler is dpm-solver, but run was trained with rectified_flow" in done.err


def test_what_iddpm_trained_dpm_solver_samples(sora: Callable[..., Any], tmp_path: Path) -> None:
    tiny = make_tiny_image_model(tmp_path / "tiny", "pixart-alpha-256")
    table = make_table(tmp_path / "clips", CAPTIONS)
    run = ("train", "-m", "pixart-alpha-256", *tiny, "--data", str(table), *TRAIN, "--frames", "1", "--steps", "1")
    refused = sora(*run, "--set", "objective.scheduler=dpm-solver")
    assert refused.code == 2
    assert "the scheduler dpm-solver samples only" in refused.err
    done = sora(*run, "--run", "run")
    assert done.code == 0, done.err
    assert trained_with("run", 1)["sampling.scheduler"] == "iddpm"
    done = sora("generate", "a fox", "--weights", "run", *tiny[2:], *SMALL, "-o", "a.png")
    assert done.code == 0, done.err
    stored = json.loads(Path("a.png.json").read_text())["scheduler"]
    assert (stored["name"], stored["steps"]) == ("dpm-solver", 20)
