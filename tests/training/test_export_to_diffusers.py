"""`sora train export --format diffusers`, and weights of diffusers as what is trained and sampled."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from opensora_tiny import TEXT_WIDTH, make_tiny_pixart
from PIL import Image
from safetensors.torch import load_file, save_file

from sora_cli.training.run_folder import describe
from sora_cli.weights.trained import trained_with
from sora_plugins.dit import pixart

SIZE = ("--size", "64x64", "--frames", "1")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The arguments that name tiny checkpoints."""
    return make_tiny_pixart(tmp_path_factory.mktemp("pixart"), no_temporal_pos_emb=True, base_size=32)


@pytest.fixture
def train(sora: Callable[..., Any], weights: list[str]) -> Callable[..., Any]:
    """Trains two updates on a picture. others: weights, in place of the tiny ones."""
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save("noise.png")
    Path("table.csv").write_text("path,text,num_frames,height,width\n" + "noise.png,noise,1,64,64\n" * 4)

    def run(*more: str, model: str = "pixart-alpha-256", others: list[str] = weights) -> Any:
        place = ("-m", model, "--data", "table.csv", "--run", "run", "--device", "cpu", "--workers", "0")
        settings = ("--steps", "2", "--batch-size", "2", "--dtype", "fp32", "--lr", "1e-2", "--ema-decay", "0.5")
        settings = (*settings, "--set", "objective.scheduler=iddpm")
        done = sora("train", *place, *SIZE, *settings, *others, *more)
        assert done.code == 0, done.err
        return done

    return run


def test_an_export_replaces_exports_only(sora: Callable[..., Any], train: Callable[..., Any]) -> None:
    train()
    before = {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()}
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("precious")
    for place, words in {
        "mine": "holds other files, which would be lost: notes.txt",
        "run": "holds other files, which would be lost",
        ".": "holds other files, which would be lost",
        "run/step-2": "belongs to the checkpoint",
        "run/step-2/model.safetensors": "belongs to the checkpoint",
    }.items():
        done = sora("train", "export", "run", "-o", place, "--overwrite")
        assert done.code == 2, done.err
        assert words in done.err
    assert Path("mine/notes.txt").read_text() == "precious"
    assert {path: path.read_bytes() for path in Path("run").rglob("*") if path.is_file()} == before
    Path("made.old").mkdir()
    Path("made.old/mine").touch()
    for _ in range(2):
        assert sora("train", "export", "run", "-o", "made", "--overwrite").code == 0
    assert sorted(path.name for path in Path("made").iterdir()) == ["config.json", "model.safetensors"]
    assert Path("made.old/mine").exists()
    assert not list(Path().glob(".made*"))


def test_diffusers_loads_what_was_trained(sora: Callable[..., Any], train: Callable[..., Any]) -> None:
    from diffusers import PixArtTransformer2DModel

    train()
    done = sora("train", "export", "run", "-o", "exported", "--format", "diffusers", "--dtype", "fp32")
    assert (done.code, done.out) == (0, "exported\n"), done.err
    assert sorted(path.name for path in Path("exported").iterdir()) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]
    theirs, report = PixArtTransformer2DModel.from_pretrained("exported", output_loading_info=True)
    assert report.pop("unexpected_keys") == ["caption_projection.y_embedding"], "as in published files"
    assert not any(report.values()), report
    ours = pixart.build(json.loads(Path("run/step-2/config.json").read_text()))
    ours.load_state_dict(load_file("run/step-2/ema.safetensors"))
    x, y, t = torch.randn(1, 4, 1, 32, 32), torch.randn(1, 1, 7, TEXT_WIDTH), torch.tensor([512.0])
    with torch.no_grad():
        mine = ours.eval()(x, t, y)[:, :, 0]
        sizes = {"resolution": None, "aspect_ratio": None}
        given = theirs(x[:, :, 0], encoder_hidden_states=y[:, 0], timestep=t, added_cond_kwargs=sizes).sample
    assert given.std() > 0.01
    torch.testing.assert_close(mine, given, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("more", "output", "options"),
    [
        ((), "folder", ()),
        ((), "file.safetensors", ()),
        ((), "diffusers", ("--format", "diffusers")),
        (("--lora", "rank=2 alpha=4"), "adapter", ()),
        (("--lora", "rank=2 alpha=4"), "adapter.safetensors", ()),
    ],
)
def test_what_is_exported_tells_of_its_training(
    sora: Callable[..., Any], train: Callable[..., Any], more: tuple[str, ...], output: str, options: tuple[str, ...]
) -> None:
    if "--lora" in more:
        pytest.importorskip("peft", reason="the extra train")
    train(*more)
    assert sora("train", "export", "run", "-o", output, *options).code == 0
    trained = trained_with("run")
    assert (trained["model.name"], trained["sampling.scheduler"]) == ("pixart-alpha-256", "iddpm")
    assert trained_with(output) == trained


def test_what_is_there_stays(sora: Callable[..., Any], train: Callable[..., Any], monkeypatch: Any) -> None:
    train()
    export = ("train", "export", "run", "--format", "diffusers", "-o", "exported")
    Path("exported").mkdir()
    Path("exported/config.json").write_text("mine")
    refused = sora(*export)
    assert (refused.code, "exported is there already" in refused.err) == (2, True)

    def full(path: Path, *rest: Any) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("sora_cli.weights.save.save_tensors", full)
        assert sora(*export, "--overwrite").code == 1
    assert [path.name for path in Path().glob("*exported*")] == ["exported"], "nothing half is left"
    assert [path.name for path in Path("exported").iterdir()] == ["config.json"]
    assert sora(*export, "--overwrite").code == 0
    assert (Path("exported") / "diffusion_pytorch_model.safetensors").is_file()


@pytest.mark.parametrize(
    ("section", "value", "message"),
    [
        ("model", {"name": "dit-xl-2-256"}, "no class that computes the same as dit-xl-2-256"),
        ("model", {}, "no class that computes the same as what this run trained"),
        ("lora", {"rank": 4, "alpha": 4, "dropout": 0.0}, "trained an adapter"),
    ],
)
def test_what_cannot_be_written(
    sora: Callable[..., Any], train: Callable[..., Any], section: str, value: dict[str, Any], message: str
) -> None:
    train()
    refused = sora("train", "export", "run", "-o", "x.safetensors", "--format", "diffusers")
    assert (refused.code, "diffusers loads a folder" in refused.err) == (2, True), refused.err
    record, manifest = Path("run/step-2/record.json"), Path("run/step-2/manifest.json")
    values = json.loads(record.read_text())
    (values if section == "lora" else values["config"])[section] = value
    record.write_text(json.dumps(values))
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), record.name: describe(record)}))
    refused = sora("train", "export", "run", "-o", "exported", "--format", "diffusers")
    assert (refused.code, message in refused.err) == (2, True), refused.err
    if section == "model":
        assert "written for it: pixart-alpha-256, pixart-alpha-512" in refused.err
    assert not list(Path().glob("exported*"))


def test_a_run_starts_from_diffusers(sora: Callable[..., Any], train: Callable[..., Any], weights: list[str]) -> None:
    train()
    sora("train", "export", "run", "-o", "exported", "--format", "diffusers", "--dtype", "fp32")
    shutil.move("run", "before")
    done = train("--lr", "1e-9", "--ema-decay", "0", others=["--weights", "exported", *weights[2:]])
    assert "so new" not in done.err
    config = json.loads(Path("run/step-2/config.json").read_text())
    assert (config["hidden_size"], config["base_size"], "_class_name" in config) == (48, 32, False)
    before, after = (load_file(f"{name}/step-2/ema.safetensors") for name in ("before", "run"))
    assert before.keys() == after.keys()
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)


def test_files_of_diffusers_need_no_table_of_no_text(
    sora: Callable[..., Any], train: Callable[..., Any], weights: list[str]
) -> None:
    """Those of PixArt-Sigma have none: a run begins a new one, and pictures need a negative prompt in its place."""
    train()
    sora("train", "export", "run", "-o", "exported", "--format", "diffusers", "--dtype", "fp32")
    file = Path("exported/diffusion_pytorch_model.safetensors")
    tensors = load_file(file)
    del tensors["caption_projection.y_embedding"]
    Path("without").mkdir()
    save_file(tensors, Path("without") / file.name)
    shutil.copy("exported/config.json", "without")
    make = ("generate", "a fox", "-m", "pixart-alpha-256", *SIZE, "--steps", "2", "--device", "cpu", "--dtype", "fp32")
    make = (*make, *weights[2:], "--guidance", "4")
    refused = sora(*make, "--weights", "without", "-o", "x.png")
    assert (refused.code, "1 missing: y_embedder.y_embedding" in refused.err) == (1, True), refused.err
    for name, more in {
        "run": ("--weights", "run"),
        "folder": ("--weights", "exported"),
        "negative": ("--weights", "exported", "--negative-prompt", "a cat"),
        "without": ("--weights", "without", "--negative-prompt", "a cat", "--no-strict"),
    }.items():
        done = sora(*make, *more, "-o", f"{name}.png")
        assert done.code == 0, done.err
    run, folder, negative, without = (
        np.asarray(Image.open(f"{name}.png")) for name in ("run", "folder", "negative", "without")
    )
    assert run.std() > 1
    assert (run == folder).all()
    assert (folder != negative).any()
    assert (negative == without).all()
    shutil.rmtree("run")
    assert "so new: y_embedder.y_embedding" in train(others=["--weights", "without", *weights[2:]]).err
