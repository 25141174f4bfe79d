"""Weights of a training run are sampled as they were trained, and what differs is said."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from sora_cli.config.resolve import resolve_generate
from sora_cli.errors import UsageError
from sora_cli.weights.locate import TRAINED_WITH, locate_weights
from sora_cli.weights.trained import trained_with

TRAINED = {
    "model.name": "giant",
    "model.variant": "large",
    "model.vae": "frames",
    "model.text_encoder": "words",
    "sampling.scheduler": "flow",
    "sampling.scheduler_options.shift": 3.0,
}


@pytest.fixture
def resolve(plugins, with_presets, tmp_path):
    """`giant` is sampled with `steps`, which predicts noise, in 8 steps; `quick` samples what `steps` trained."""
    steps = dataclasses.replace(plugins.get("scheduler", "steps"), prediction="noise")
    plugins.add("scheduler", steps)
    plugins.add("scheduler", dataclasses.replace(steps, name="quick", trained_by="steps", default_steps=5))
    plugins.add("model", dataclasses.replace(plugins.get("model", "giant"), scheduler="steps"))
    with_presets({"models/giant.yaml": "sampling: {scheduler: steps, steps: 8}\n"})

    def run(flags, **more):
        return resolve_generate(flags, plugins=plugins, environ={"HOME": str(tmp_path)}, cwd=tmp_path, **more)

    return run


@pytest.fixture
def weights(tmp_path):
    """`weights(values)`: a folder of weights that say what they were trained with."""

    def make(values=TRAINED):
        folder = tmp_path / "run"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"hidden_size": 8, TRAINED_WITH: values}))
        (folder / "model.safetensors").write_bytes(b"x")
        return str(folder)

    return make


def test_the_settings_of_training_are_used(resolve, weights):
    resolved = resolve({"model": {"weights": weights()}})
    model, sampling = resolved.config.model, resolved.config.sampling
    assert (model.name, model.variant, model.vae) == ("giant", "large", "frames")
    assert (sampling.scheduler, sampling.scheduler_options) == ("flow", {"shift": 3.0})
    assert sampling.steps == 30, "not the 8 that the model's preset has for another scheduler"
    assert resolved.origins["sampling.scheduler"] == f"training of {weights()}"
    assert resolved.notes == ()


def test_as_strong_settings_win_and_are_said(resolve, weights):
    flags = {"model": {"name": "giant", "weights": weights()}, "sampling": {"scheduler": "steps"}}
    resolved = resolve(flags)
    assert (resolved.config.sampling.scheduler, resolved.config.sampling.steps) == ("steps", 8)
    assert f"sampling.scheduler is steps, but {weights()} was trained with flow" in resolved.notes
    assert any("scheduler_options.shift" in note and "is for flow and not used" in note for note in resolved.notes)
    resolved = resolve({"model": {"weights": weights()}}, options=["scheduler.shift=1"])
    assert f"sampling.scheduler_options.shift is 1.0, but {weights()} was trained with 3.0" in resolved.notes
    resolved = resolve({"model": {"name": "tiny", "weights": weights()}})
    assert f"model.name is tiny, but {weights()} was trained with giant" in resolved.notes


def test_adapters_say_what_they_were_trained_with(resolve, weights):
    flags = {"model": {"name": "giant", "variant": "large", "vae": "frames", "lora": (f"{weights()}:0.5",)}}
    resolved = resolve(flags)
    assert resolved.config.sampling.scheduler == "steps"
    assert resolved.notes == (
        "model.vae is frames, but giant was trained with blocks",
        f"sampling.scheduler is steps, but {weights()} was trained with flow",
    )


def test_autoencoders_of_the_same_latents(resolve, plugins, weights):
    flags = {"model": {"name": "giant", "vae": "frames"}}
    trained = {key: value for key, value in TRAINED.items() if not key.startswith("sampling.scheduler_options")}
    trained = weights({**trained, "model.vae": "blocks"})
    of_run = {"model": {"weights": trained, "vae": "frames"}}
    assert resolve(flags).notes == ("model.vae is frames, but giant was trained with blocks",)
    assert resolve(of_run).notes == (f"model.vae is frames, but {trained} was trained with blocks",)
    for name in ("blocks", "frames"):
        plugins.add("vae", dataclasses.replace(plugins.get("vae", name), latents="common"))
    assert resolve(flags).notes == resolve(of_run).notes == ()


def test_released_weights_and_a_scheduler_of_other_networks(resolve):
    resolved = resolve({"model": {"name": "giant"}, "sampling": {"scheduler": "flow"}})
    assert resolved.notes == ("sampling.scheduler is flow, but giant was trained with steps",)
    assert resolve({"model": {"name": "giant"}, "sampling": {"scheduler": "quick"}}).notes == ()


def test_files_with_tensors_say_it_too(weights, tmp_path):
    """An adapter, a single file and a file of diffusers have no config.json that could."""
    other = {**TRAINED, "model.vae": "blocks"}
    config = Path(weights(other))
    tensors, metadata = {"x": np.zeros(1, np.float32)}, {TRAINED_WITH: json.dumps(TRAINED)}
    for name in ("adapter_model", "diffusion_pytorch_model", "style"):
        save_file(tensors, tmp_path / f"{name}.safetensors", metadata=metadata)
        place = tmp_path / f"{name}.safetensors" if name == "style" else tmp_path
        assert trained_with(str(place)) == TRAINED
        (tmp_path / f"{name}.safetensors").rename(config / f"{name}.safetensors")
    assert trained_with(str(config / "style.safetensors")) == TRAINED, "config.json may be that of others"
    assert trained_with(str(config)) == other
    save_file(tensors, config / "style.safetensors")
    assert trained_with(str(config / "style.safetensors")) == other


def test_weaker_settings_lose(resolve, weights, tmp_path):
    (tmp_path / "sora.yaml").write_text("model: {name: tiny}\nsampling: {scheduler: steps}\n")
    resolved = resolve({"model": {"weights": weights()}})
    assert (resolved.config.model.name, resolved.config.sampling.scheduler) == ("giant", "flow")


def test_a_scheduler_that_samples_what_another_trained_stays(resolve, plugins, weights):
    plugins.add("model", dataclasses.replace(plugins.get("model", "giant"), scheduler="quick"))
    # The preset of `giant` names a scheduler, so this is another model.
    plugins.add("model", dataclasses.replace(plugins.get("model", "giant"), name="other"))
    trained = {key: value for key, value in TRAINED.items() if not key.startswith("sampling.")}
    trained = {**trained, "model.name": "other", "sampling.scheduler": "steps"}
    resolved = resolve({"model": {"weights": weights(trained)}})
    assert (resolved.config.sampling.scheduler, resolved.config.sampling.steps) == ("quick", 5)
    assert resolved.notes == ()
    changed = {**trained, "sampling.scheduler_options.shift": 2.0}
    plugins.add("scheduler", dataclasses.replace(plugins.get("scheduler", "steps"), options="tiny_options:FlowOptions"))
    assert resolve({"model": {"weights": weights(changed)}}).config.sampling.scheduler == "steps"


def test_an_unknown_scheduler_of_training(resolve, weights):
    with pytest.raises(UsageError) as caught:
        resolve({"model": {"weights": weights({**TRAINED, "sampling.scheduler": "gone"})}})
    assert "training of" in caught.value.message


def test_only_what_a_run_keeps_is_taken(resolve, weights):
    """A file from elsewhere sets neither where outputs go nor anything else."""
    place = weights({**TRAINED, "output.overwrite": True, "model.weights": "/etc/passwd", "hardware.gpus": 8})
    assert trained_with(place) == TRAINED


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"trained_with": 3}', '{"trained_with": {"model.name": "tiny"}}']
)
def test_weights_that_say_nothing(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    assert trained_with(str(tmp_path)) == {}
    assert trained_with(str(tmp_path / "absent")) == {}


def test_it_is_no_part_of_the_architecture(weights):
    found = locate_weights(None, what="x", override=weights())
    assert found.config() == {"hidden_size": 8}
    assert trained_with(weights()) == trained_with(f"{weights()}/model.safetensors") == TRAINED
