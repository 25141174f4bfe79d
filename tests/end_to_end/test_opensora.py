"""Open-Sora 1.2 through the real code: tiny checkpoints with the released names, and damaged ones."""

from __future__ import annotations

import json
import pickle
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from executable import Executable, files_in, frames_of, image_of, stop_when
from opensora_tiny import SHAPE, make_tiny_opensora


@pytest.fixture
def executable(here: Executable) -> Executable:
    return here


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The arguments that name the three tiny checkpoints."""
    return make_tiny_opensora(tmp_path_factory.mktemp("opensora"))


def test_a_clip(executable: Executable, weights: list[str]) -> None:
    for name in ("a", "b"):
        done = executable("generate", "a waterfall", *SHAPE, *weights, "-o", f"{name}.mp4")
        assert done.stdout == f"{name}.mp4\n"
    assert "64x96, 17 frames, is smaller than what this model was trained on; nearest: 144p up to 16s" in done.stderr
    frames = frames_of(executable.folder / "a.mp4")
    assert frames.shape == (17, 64, 96, 3)
    assert frames.std() > 1, "not one colour"
    assert (executable.folder / "a.mp4").read_bytes() == (executable.folder / "b.mp4").read_bytes()
    stored = json.loads((executable.folder / "a.mp4.json").read_text())
    assert (stored["model"]["name"], stored["model"]["variant"]) == ("opensora-v1.2", "XL/2")
    assert stored["shape"]["num_frames"] == 17
    assert all(len(stored[part]["weights"]) == 16 for part in ("model", "vae", "text_encoder"))


def test_pictures_of_two_prompts(executable: Executable, weights: list[str]) -> None:
    """Texts of different lengths in one batch; packed and masked cross attention paint the same."""
    prompts = ("a cat", "a long prompt about a dog that runs along the beach")
    for way in ("packed", "masked"):
        more = ("--frames", "1", "--batch-size", "2", "-O", f"cross_attention={way}", "-o", way)
        executable("generate", *prompts, *SHAPE, *weights, *more)
    made = [name for name in files_in(executable.folder / "packed") if name.endswith(".png")]
    assert len(made) == 2
    pictures = [image_of(executable.folder / "packed" / name) for name in made]
    assert pictures[0].shape == (64, 96, 3)
    assert (pictures[0] != pictures[1]).any()
    for name, picture in zip(made, pictures, strict=True):
        other = image_of(executable.folder / "masked" / name).astype(int)
        assert abs(picture.astype(int) - other).max() <= 1


def test_an_interrupted_clip_goes_on(executable: Executable, weights: list[str]) -> None:
    run = ("generate", "a waterfall", *SHAPE, *weights, "--steps", "150")
    executable(*run, "-o", "whole.mp4")
    kept = executable.folder / "x.mp4.partial.safetensors"
    stopped = stop_when(executable, kept.exists, signal.SIGINT, *run, "-o", "x.mp4")
    assert stopped.returncode == 130, stopped.stderr
    assert "the same command goes on there" in stopped.stderr
    done = executable(*run, "-o", "x.mp4")
    assert "from step" in done.stderr
    assert (executable.folder / "x.mp4").read_bytes() == (executable.folder / "whole.mp4").read_bytes()


def test_dry_run(sora: Callable[..., Any], weights: list[str]) -> None:
    done = sora("generate", "a cat", *SHAPE, *weights, "--dry-run", "--json")
    assert done.code == 0, done.err
    record = json.loads(done.out)
    assert record["latent"] == {"channels": 4, "frames": 5, "height": 8, "width": 12}
    rows = {row["key"]: row for row in record["settings"]}
    for key, folder in zip(("weights", "vae_weights", "text_weights"), weights[1::2], strict=True):
        assert (rows[f"model.{key}"]["value"], rows[f"model.{key}"]["origin"]) == (folder, "flag")
    assert (rows["sampling.steps"]["value"], rows["sampling.guidance"]["value"]) == (2, 7.0)
    assert rows["sampling.scheduler"]["value"] == "rectified_flow"


# --- memory ------------------------------------------------------------------------------------------------------


def test_the_text_encoder_is_gone_before_the_network_is_loaded(
    sora: Callable[..., Any], weights: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import gc

    from sora_cli.tasks import components
    from sora_plugins.t5.encoder import T5Encoder

    load, alive = components.load_network, []

    def load_and_look(*arguments: Any, **keywords: Any) -> Any:
        alive.append([thing for thing in gc.get_objects() if type(thing) is T5Encoder])
        return load(*arguments, **keywords)

    monkeypatch.setattr(components, "load_network", load_and_look)
    done = sora("generate", "a cat", *SHAPE, *weights, "-o", "x.mp4")
    assert done.code == 0, done.err
    assert alive == [[]]


def test_out_of_memory_while_sampling(
    sora: Callable[..., Any], weights: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sora_cli.tasks.sampling import OneByOne

    arguments = ("generate", "a cat", *SHAPE, *weights, "--frames", "1", "--dtype", "fp32")
    assert sora(*arguments, "-o", "whole.png").code == 0
    call, limit = OneByOne.__call__, 1

    def call_with_little_memory(self: OneByOne, x: torch.Tensor, *rest: Any, **conditioning: Any) -> torch.Tensor:
        if len(x) / self.num_clips > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return call(self, x, *rest, **conditioning)

    monkeypatch.setattr(OneByOne, "__call__", call_with_little_memory)
    done = sora(*arguments, "-o", "parts.png")
    assert done.code == 0, done.err
    assert "out of memory; once more with one row of the batch at a time" in done.err
    difference = image_of(Path("whole.png")).astype(int) - image_of(Path("parts.png"))
    assert abs(difference).max() <= 1

    limit = 0
    done = sora(*arguments, "-o", "none.png")
    assert done.code == 1
    assert "not enough memory on cpu for 64x96, 1 frames" in done.err
    assert "try a smaller --res or --len" in done.err
    assert "Traceback" not in done.err
    assert not Path("none.png").exists()


def test_out_of_memory_while_decoding(
    sora: Callable[..., Any], weights: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sora_plugins.opensora_vae.model import VideoAutoencoder

    decode = VideoAutoencoder.decode

    def decode_with_little_memory(self: Any, *arguments: Any, frames_at_once: int | None = None) -> Any:
        if frames_at_once != 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return decode(self, *arguments, frames_at_once=1)

    monkeypatch.setattr(VideoAutoencoder, "decode", decode_with_little_memory)
    done = sora("generate", "a cat", *SHAPE, *weights, "-o", "x.mp4")
    assert done.code == 0, done.err
    assert "out of memory; once more, decoding one frame at a time" in done.err
    assert frames_of(Path("x.mp4")).shape == (17, 64, 96, 3)


@pytest.mark.parametrize(
    ("free_gib", "code", "messages"),
    [
        (24.0, 0, ["offload none, text encoder same"]),
        (12.0, 0, ["offload none, text encoder block, decoding 2 frames at a time"]),
        (3.9, 0, ["offload block, text encoder block, decoding 1 frames at a time"]),
        (3.2, 1, ["needs about", "and this one has 3.2 free", "--res 480p fits"]),
    ],
)
def test_the_plan_follows_the_free_memory_of_a_gpu(
    sora: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, free_gib: float, code: int, messages: list[str]
) -> None:
    from sora_cli.launch import machine

    monkeypatch.setattr(machine, "gpus", lambda: (machine.Gpu("H100", 80.0, free_gib),))
    done = sora("generate", "a cat", "-m", "opensora-v1.2", "--res", "720p", "--len", "4s", "--dry-run", "--json")
    assert done.code == code, done.err
    if code:
        assert all(message in done.err for message in messages)
        return
    memory = json.loads(done.out)["memory"]
    assert memory["peak_gib"] <= memory["device_gib"] == free_gib
    said = "offload {offload}, text encoder {text_device}, decoding {decode_frames} frames at a time".format(**memory)
    assert messages[0] in said


def test_little_main_memory_is_said(sora: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from sora_cli.tasks import run_memory

    monkeypatch.setattr(run_memory, "main_memory_gib", lambda: 8.0)
    done = sora("generate", "a cat", *SHAPE, "--dry-run")
    assert done.code == 0, done.err
    assert "GiB of main memory, and 8.0 GiB are free" in done.err


# --- what can be wrong -------------------------------------------------------------------------------------------


@pytest.fixture
def copy_of(weights: list[str], tmp_path: Path) -> Callable[[str], Path]:
    """A folder of the tiny model's part ("model", "vae" or "text") that may be damaged."""

    def copy(part: str) -> Path:
        source = Path(weights[1]).parent / part
        return Path(shutil.copytree(source, tmp_path / part))

    return copy


def with_part(weights: list[str], part: str, place: Path) -> list[str]:
    flag = {"model": "--weights", "vae": "--vae-weights", "text": "--text-weights"}[part]
    position = weights.index(flag) + 1
    return [*weights[:position], str(place), *weights[position + 1 :]]


class Malicious:
    """Unpickled without care, it makes a folder."""

    def __reduce__(self) -> Any:
        import os

        return os.mkdir, ("made-by-the-checkpoint",)


def damage(folder: Path, kind: str) -> None:
    file, config = folder / "model.safetensors", folder / "config.json"
    if kind == "truncated":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif kind == "malicious":
        file.unlink()
        with (folder / "model.pt").open("wb") as stream:
            pickle.dump({"state": Malicious()}, stream)
    elif kind == "wider":
        config.write_text(json.dumps({**json.loads(config.read_text()), "hidden_size": 64}))
    elif kind == "other network":
        config.write_text(json.dumps({**json.loads(config.read_text()), "model_type": "STDiT2"}))
    elif kind == "other tensors":
        from safetensors.torch import save_file

        save_file({"blocks.0.attn.qkv.weight": torch.zeros(2)}, file)


@pytest.mark.parametrize(
    ("part", "kind", "messages"),
    [
        ("model", "truncated", ["cannot read the weights file", "model.safetensors"]),
        ("model", "malicious", ["model.pt"]),
        ("model", "wider", ["do not fit opensora-v1.2", "of another shape", "wanted (64,"]),
        ("model", "other network", ["a network called 'STDiT2', not of STDiT3"]),
        ("model", "other tensors", ["do not fit opensora-v1.2", "blocks.0.attn.qkv.weight"]),
        ("vae", "truncated", ["model.safetensors"]),
        ("text", "truncated", ["model.safetensors"]),
    ],
)
def test_damaged_checkpoints(
    sora: Callable[..., Any],
    weights: list[str],
    copy_of: Callable[[str], Path],
    part: str,
    kind: str,
    messages: list[str],
) -> None:
    folder = copy_of(part)
    damage(folder, kind)
    done = sora("generate", "a cat", *SHAPE, *with_part(weights, part, folder), "-o", "x.mp4")
    assert done.code == 1, done.err
    for message in messages:
        assert message in done.err
    assert "Traceback" not in done.err
    assert not Path("x.mp4").exists()
    assert not Path("made-by-the-checkpoint").exists()


def test_a_checkpoint_that_does_not_fit_is_loaded_when_asked(
    sora: Callable[..., Any], weights: list[str], copy_of: Callable[[str], Path]
) -> None:
    from safetensors.torch import load_file, save_file

    file = copy_of("model") / "model.safetensors"
    tensors = load_file(file)
    del tensors["fps_embedder.mlp.0.bias"]
    save_file({**tensors, "extra.weight": torch.zeros(2)}, file)
    arguments = ("generate", "a cat", *SHAPE, *with_part(weights, "model", file.parent), "-o", "x.mp4")
    done = sora(*arguments)
    assert done.code == 1
    for name in ("fps_embedder.mlp.0.bias", "extra.weight", "--no-strict"):
        assert name in done.err
    done = sora(*arguments, "--no-strict")
    assert done.code == 0, done.err
    for name in ("fps_embedder.mlp.0.bias", "extra.weight"):
        assert name in done.err
    assert frames_of(Path("x.mp4")).shape == (17, 64, 96, 3)


@pytest.mark.parametrize("part", ["model", "vae", "text"])
def test_a_folder_that_is_not_there(sora: Callable[..., Any], weights: list[str], part: str) -> None:
    done = sora("generate", "a cat", *SHAPE, *with_part(weights, part, Path("nowhere/at-all/here")))
    assert done.code == 2, done.err
    assert "nowhere/at-all/here" in done.err
    assert "Traceback" not in done.err


def test_weights_that_were_not_downloaded(sora: Callable[..., Any]) -> None:
    done = sora("generate", "a cat", *SHAPE)
    assert done.code == 3, done.err
    assert "hpcai-tech/OpenSora-STDiT-v3" in done.err


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (("--size", "65x96"), ["not made of multiples of 8", "use 64 or 72"]),
        (("--res", "1081p"), ["unknown resolution '1081p'", "did you mean '1080p'?"]),
        (("--variant", "4B/2"), ["unknown variant of opensora-v1.2 '4B/2'", "did you mean '3B/2'?"]),
    ],
)
def test_wrong_sizes(
    sora: Callable[..., Any], weights: list[str], arguments: tuple[str, ...], messages: list[str]
) -> None:
    done = sora("generate", "a cat", "-m", "opensora-v1.2", *weights, "--frames", "17", *arguments)
    assert done.code == 2, done.err
    for message in messages:
        assert message in done.err
