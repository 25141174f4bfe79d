"""What training starts from besides the model's own files: image models, and checkpoints of the released code."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
import torch
from opensora_tiny import NETWORK
from safetensors.torch import save_file

from sora_cli.errors import SoraError
from sora_cli.training.engine import Engine, EngineOptions
from sora_cli.training.released_runs import is_released_run, read_released_run
from sora_cli.weights.load import load_network
from sora_cli.weights.locate import TRAINED_WITH, locate_weights
from sora_cli.weights.trained import KEPT
from sora_plugins.stdit.adapt import start_stdit3
from sora_plugins.stdit.stdit3 import build

CPU = torch.device("cpu")


def network(seed: int = 0):
    torch.manual_seed(seed)
    made = build(NETWORK)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return made


def started(path: Path):
    weights = locate_weights(None, what="the model", override=str(path))
    return load_network(
        functools.partial(build, NETWORK),
        weights,
        what="tiny",
        device=CPU,
        dtype=torch.float32,
        start=lambda tensors: start_stdit3(tensors, NETWORK),
    )


def image_model() -> dict[str, torch.Tensor]:
    """The tensors that PixArt-Sigma would have at this size, of a shorter text."""
    tensors = {}
    for name, tensor in network().state_dict().items():
        if name.startswith(("temporal_blocks.", "fps_embedder.")) or "_norm." in name or name == "rope.freqs":
            continue
        tensors[name.replace("spatial_blocks.", "blocks.")] = tensor
    tensors["x_embedder.proj.weight"] = tensors["x_embedder.proj.weight"][:, :, 0]
    tensors["y_embedder.y_embedding"] = tensors["y_embedder.y_embedding"][:120]
    return {**tensors, "pos_embed": torch.zeros(1, 4, 32), "csize_embedder.mlp.0.weight": torch.zeros(2, 2)}


def test_an_image_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    torch.save({"state_dict": image_model(), "epoch": 3}, tmp_path / "PixArt.pth")
    made, source = started(tmp_path / "PixArt.pth"), network()
    said = capsys.readouterr().err
    assert "so new: fps_embedder, k_norm, q_norm, rope.freqs, temporal_blocks" in said
    spatial = "spatial_blocks.0.mlp.fc1.weight"
    assert torch.equal(made.get_parameter(spatial), source.get_parameter(spatial))
    assert not made.get_parameter("temporal_blocks.0.attn.proj.weight").any(), "temporal blocks begin as the identity"
    table = made.y_embedder.y_embedding
    assert torch.equal(table[119:], source.y_embedder.y_embedding[119].expand(181, -1))


def test_half_of_a_video_model_is_no_image_model(tmp_path: Path):
    tensors = network().state_dict()
    del tensors["temporal_blocks.0.mlp.fc1.weight"]
    save_file(tensors, tmp_path / "half.safetensors")
    with pytest.raises(SoraError, match="do not fit") as failed:
        started(tmp_path / "half.safetensors")
    assert "1 missing: temporal_blocks.0.mlp.fc1.weight" in str(failed.value.hint)


# -- checkpoints of the released code ------------------------------------------------------------------------------


def engine_of(seed: int) -> Engine:
    made = network(seed)
    for name, parameter in made.named_parameters():
        if name.startswith("y_embedder."):
            parameter.requires_grad_(False)
    return Engine(made, EngineOptions(ema_decay=0.9))


def stored(key: str, tensor: torch.Tensor, engine: Engine) -> tuple[str, torch.Tensor]:
    """A moment under the name and in the shape that ColossalAI gives it."""
    kind, _, name = key.partition(".")
    value = tensor.reshape(1) if kind == "step" else tensor
    return f"state.{engine.trainable.index(name)}.{kind}", value.clone()


@pytest.fixture
def released(tmp_path: Path) -> tuple[Engine, Path]:
    """A trained engine, and its state as ColossalAI would write it: shards, numbers for names, a pickled average."""
    engine = engine_of(0)
    for step in range(2):
        generator = torch.Generator().manual_seed(step)
        for parameter in engine.optimizer.parameters.values():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        engine.update(1e-2, 1.0)
    folder = tmp_path / "epoch0-global_step2"
    files = engine.files()
    names = sorted(files["model"])
    shards = {f"model-{index:05}.safetensors": names[index - 1 :: 2] for index in (1, 2)}
    (folder / "model").mkdir(parents=True)
    for file, own in shards.items():
        save_file({name: files["model"][name].detach().clone() for name in own}, folder / "model" / file)
    where = {name: file for file, own in shards.items() for name in own}
    (folder / "model" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    (folder / "optimizer").mkdir()
    moments = dict(stored(key, tensor, engine) for key, tensor in files["optimizer"].items())
    save_file(moments, folder / "optimizer" / "optimizer-00001.safetensors")
    torch.save(files["ema"], folder / "ema.pt")
    (folder / "running_states.json").write_text(json.dumps({"epoch": 0, "step": 2, "global_step": 2}))
    return engine, folder


def test_a_checkpoint_of_the_released_code_goes_on(released):
    engine, folder = released
    assert is_released_run(folder)
    other = engine_of(5)
    other.load(read_released_run(folder, other.trainable))
    for each in (engine, other):
        for parameter in each.optimizer.parameters.values():
            parameter.grad = torch.ones_like(parameter)
        each.update(1e-2, 1.0)
    ours, theirs = other.files(), engine.files()
    for part in ("model", "ema", "optimizer"):
        assert ours[part].keys() == theirs[part].keys()
        for name in ours[part]:
            assert torch.equal(ours[part][name], theirs[part][name]), (part, name)
    frozen = "y_embedder.y_proj.fc1.weight"
    assert torch.equal(other.network.get_parameter(frozen), engine.network.get_parameter(frozen))


def test_other_parameters_are_noticed(released):
    _, folder = released
    every = [name for name, parameter in network().named_parameters() if parameter.requires_grad]
    with pytest.raises(SoraError, match="is of other parameters: number"):
        read_released_run(folder, every)
    with pytest.raises(SoraError, match="is of more than the 3 parameters"):
        read_released_run(folder, every[:3])


def test_the_architecture_of_another_model_is_not_taken(sora, tmp_path: Path):
    """A network of captions starts from a run of classes: its labels and sizes are not the new network's."""
    trained = {**dict.fromkeys(KEPT, "x"), "model.name": "dit-xl-2-256"}
    config = {"hidden_size": 48, "condition": "label_1000", TRAINED_WITH: trained}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    Path("clips.csv").write_text("path,text,num_frames,height,width\na.mp4,7,600,720,1280\n")
    shape = ("--size", "256x256", "--frames", "1", "--batch-size", "1", "--device", "cpu")
    Path("other").mkdir()
    save_file({"x": torch.zeros(1)}, "other/model.safetensors")
    weights = {}
    for name, more in {"dit-text": ("--text-weights", "other"), "dit-xl-2-256": ()}.items():
        parts = ("--weights", str(tmp_path), "--vae-weights", "other", *more)
        done = sora("train", "-m", name, *parts, "--data", "clips.csv", *shape, "--dry-run", "--json")
        assert done.code == 0, done.err
        weights[name] = json.loads(done.out)["memory"]["weights_gib"]
    assert weights["dit-text"] > 1 > weights["dit-xl-2-256"]
