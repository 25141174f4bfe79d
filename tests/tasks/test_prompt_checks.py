"""What is refused before anything is fetched or loaded: prompts that are no classes, encoders and settings that do not
fit, weights that there are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Nothing is fetched; what would be is in the list."""
    asked: list[str] = []

    def fetch(repo: str, *arguments: object, **more: object) -> None:
        asked.append(repo)
        raise ConnectionError(repo)

    monkeypatch.setattr("sora_cli.weights.locate.fetch", fetch)
    return asked


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["golden retreiver"], "there is no class of ImageNet 'golden retreiver'", "mean 'golden retriever'?"),
        (["retreiver"], "there is no class of ImageNet 'retreiver'", "did you mean 'retriever'?"),
        (["retriever"], "there is no class of ImageNet 'retriever'", "golden retriever (207)"),
        (["1000"], "there is no class of ImageNet 1000", "`sora plugins show imagenet-classes` lists"),
        (["otter", "7", "no such thing"], "'no such thing'", "0 to 999"),
        (["7", "--negative-prompt", "ugly"], "there is no class of ImageNet 'ugly'", "0 to 999"),
        (["7", "--aes", "6"], "is the number or name of a class, not a text that scores", "leave out --aes"),
        (['7{"motion": 5}'], "not a text that scores can be added to", "leave out --motion"),
        (["7", "--refine"], "not a text that could be refined", "leave out --refine"),
        (["7", "--text-encoder", "clip"], "reads numbers of classes", "the model's own is imagenet-classes"),
        (["7", "--vae", "nano"], "latents of 4 channels, and nano reads 32", "own is sd-vae-ft-ema"),
    ],
)
def test_a_class_model_takes_classes_only(arguments, message, hint, sora, no_hub) -> None:
    Path("weights.pt").write_bytes(b"weights")
    finished = sora("generate", *arguments, "-m", "dit-xl-2-256", "--weights", "weights.pt")
    assert finished.code == 2
    assert message in finished.err
    assert hint in finished.err
    assert not no_hub


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        (["--len", "2s"], "--len"),
        (["--frames", "16"], "--frames"),
        (["--fps", "8", "--save-fps", "4"], "--fps, --save-fps"),
        (["--camera", "pan left"], "--camera"),
        (["--motion", "0"], "--motion"),
        (["--segments", "2"], "--segments"),
        (["--seamless"], "--seamless"),
        (["--last", "picture.png"], "--last"),
        (["--connect", "picture.png", "picture.png"], "--connect"),
    ],
)
def test_a_picture_has_nothing_of_a_video(arguments, given, sora, no_hub) -> None:
    Image.new("RGB", (64, 64)).save("picture.png")
    finished = sora("generate", "a fox", *arguments, "-m", "pixart-alpha-512")
    assert finished.code == 2
    assert f"pixart-alpha-512 makes single pictures, and this is for videos: {given}\n" in finished.err
    assert not no_hub


def test_a_picture_says_where_a_length_comes_from_and_leaves_rates_of_files_alone(sora, no_hub) -> None:
    Path("sora.yaml").write_text("shape: {fps: 12}\nconditioning: {camera: pan left}\n")
    dry = sora("generate", "a fox", "-m", "pixart-alpha-512", "--dry-run", "--json")
    assert dry.code == 0, dry.err
    assert list(json.loads(dry.out)["files"]) == [str(Path("outputs/a-fox-42.png"))]
    Path("sora.yaml").write_text("shape: {duration: 4s}\n")
    refused = sora("generate", "a fox", "-m", "pixart-alpha-512", "--dry-run")
    assert refused.code == 2
    assert "--len (file sora.yaml)" in refused.err


@pytest.mark.parametrize(
    ("model", "encoder", "message"),
    [
        ("opensora-v1.1", "clip", "opensora-v1.1 reads texts of width 4096, and the text encoder"),
        ("opensora-v1.0", "imagenet-classes", "the text encoder imagenet-classes gives numbers of classes"),
        ("pixart-sigma-512", "nano", "pixart-sigma-512 reads texts of width 4096"),
        ("nano", "t5", "nano reads texts of width 128"),
    ],
)
def test_a_text_encoder_of_another_width_is_refused(model, encoder, message, sora, no_hub) -> None:
    finished = sora("generate", "7", "-m", model, "--text-encoder", encoder)
    assert finished.code == 2
    assert message in finished.err
    assert not no_hub


def test_the_width_is_that_of_the_weights_that_are_given(sora, no_hub, tmp_path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "config.json").write_text('{"condition": "text", "caption_channels": 512}')
    given = ["generate", "7", "-m", "dit-xl-2-256", "--weights", str(tmp_path)]
    refused = sora(*given)
    assert "dit-xl-2-256 reads texts of width 512, and the text encoder imagenet-classes gives numbers" in refused.err
    assert not no_hub
    fits = sora(*given, "--text-encoder", "clip", "--dry-run")
    assert fits.code == 0, fits.err
    encoder = tmp_path / "clip"
    encoder.mkdir()
    (encoder / "model.safetensors").write_bytes(b"weights")
    (encoder / "config.json").write_text('{"text_config": {"hidden_size": 16}}')
    refused = sora(*given, "--text-encoder", "clip", "--text-weights", str(encoder))
    assert "dit-xl-2-256 reads texts of width 512, and the text encoder clip-vit-base-patch32 gives" in refused.err
    assert "texts of width 16\n" in refused.err
    assert not no_hub


def test_training_checks_the_width_too(sora, no_hub, tmp_path) -> None:
    (tmp_path / "clips.csv").write_text("path,text,num_frames,height,width\na.mp4,a fox,51,144,256\n")
    given = ["train", "--preset", "v1.1-stage1", "--data", str(tmp_path / "clips.csv"), "--init", "random"]
    refused = sora(*given, "--text-encoder", "clip", "--dry-run")
    assert refused.code == 2, refused.out
    assert "opensora-v1.1 reads texts of width 4096" in refused.err


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["--preset", "opensora-v1.0-64x512"], "opensora-v1.0 (64x512) comes without weights", 3),
        (["-m", "opensora-v1.2", "--variant", "3B/2"], "opensora-v1.2 (3B/2) comes without weights", 3),
        (["-m", "opensora-v1.1", "--vae-weights", "absent"], "no weights for sd-vae-ft-ema at absent", 2),
        (["-m", "opensora-v1.1", "--text-weights", "absent"], "no weights for t5-v1.1-xxl-200 at absent", 2),
    ],
)
def test_nothing_is_fetched_for_a_run_that_cannot_be(arguments, message, code, sora, no_hub) -> None:
    finished = sora("generate", "a fox", *arguments)
    assert finished.code == code
    assert message in finished.err
    assert not no_hub


def test_what_can_be_fetched_is_fetched(sora, no_hub) -> None:
    assert sora("generate", "a fox", "-m", "opensora-v1.1").code == 1
    assert no_hub == ["hpcai-tech/OpenSora-STDiT-v2-stage3"]
