"""The network has the tensors of the released checkpoints: names, shapes, formats and numbers of parameters."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
import torch

from sora_cli.errors import SoraError
from sora_cli.plugin.manager import get_plugins, load_attribute
from sora_cli.weights.load import check_tensors
from sora_plugins.stdit.stdit3 import STDiT3, build

# Made absolute here: tests run in a folder of their own.
FOLDER = Path(os.environ.get("GOLDENS_DIR") or Path(__file__).parents[1] / "goldens").resolve() / "manifests"


@pytest.fixture(params=["stdit3-xl-2", "stdit3-3b-2"])
def manifest(request) -> dict:
    path = FOLDER / f"{request.param}.json"
    if not path.is_file():
        pytest.skip(f"golden manifest {path.name!r} is not in {FOLDER}")
    return json.loads(path.read_text())


def on_meta(config: dict) -> STDiT3:
    with torch.device("meta"):
        return build(config)


def test_same_tensors_as_the_checkpoint(manifest):
    model = on_meta(manifest["config"])
    parameters = dict(model.named_parameters())
    ours = {
        name: {
            "shape": list(tensor.shape),
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "kind": "parameter" if name in parameters else "buffer",
        }
        for name, tensor in model.state_dict().items()
    }
    assert ours == manifest["tensors"]
    assert len(ours) == manifest["n_tensors"] == 973


def test_parameters_are_in_the_order_of_the_checkpoint(manifest):
    """Checkpoints of ColossalAI number the optimizer's state by it."""
    ours = [name for name, _ in on_meta(manifest["config"]).named_parameters()]
    assert ours == [name for name, about in manifest["tensors"].items() if about["kind"] == "parameter"]


def of_the_spec(manifest: dict) -> STDiT3:
    """The network that `-m opensora-v1.2 --variant ...` builds."""
    spec = get_plugins().get("model", "opensora-v1.2")
    variant = manifest["registry_name"].removeprefix("STDiT3-")
    with torch.device("meta"):
        return load_attribute(spec.target, what=spec.name)(spec.variants[variant], None)


def file_of(manifest: dict) -> dict[str, torch.Tensor]:
    """The tensors of the checkpoint, without their values."""
    return {name: torch.empty(entry["shape"], device="meta") for name, entry in manifest["tensors"].items()}


def accept(model: STDiT3, tensors: dict[str, torch.Tensor]) -> None:
    """What `load_network` does before it takes the tensors."""
    spec = get_plugins().get("model", "opensora-v1.2")
    mapped = load_attribute(spec.load, what=spec.name)(tensors)
    check_tensors(model, mapped, what=spec.name, source=Path("released"))


def test_the_spec_accepts_the_released_file(manifest):
    model, tensors = of_the_spec(manifest), file_of(manifest)
    accept(model, tensors)
    # The frequencies follow from the head width; some copies of the file lack them.
    accept(model, {name: tensor for name, tensor in tensors.items() if name != "rope.freqs"})


def test_the_spec_refuses_other_files(manifest):
    model, tensors = of_the_spec(manifest), file_of(manifest)
    damaged = dict(tensors)
    del damaged["spatial_blocks.3.attn.qkv.weight"]
    damaged["temporal_blocks.0.mlp.fc1.bias"] = damaged["temporal_blocks.0.mlp.fc1.bias"][1:]
    damaged["head.weight"] = torch.empty(1, device="meta")
    with pytest.raises(SoraError) as caught:
        accept(model, damaged)
    assert "spatial_blocks.3.attn.qkv.weight" in caught.value.hint
    assert "temporal_blocks.0.mlp.fc1.bias" in caught.value.hint
    assert "head.weight" in caught.value.hint


def test_the_spec_is_the_released_configuration(manifest):
    spec = get_plugins().get("model", "opensora-v1.2")
    variant = spec.variants[manifest["registry_name"].removeprefix("STDiT3-")]
    listed = {key: tuple(value) if isinstance(value, list) else value for key, value in manifest["config"].items()}
    assert {key: variant[key] for key in listed} == listed


def test_only_the_published_size_has_weights():
    spec = get_plugins().get("model", "opensora-v1.2")
    assert next(iter(spec.variants)) == "XL/2"
    assert set(spec.weights) == {"XL/2"}
    weights = spec.weights["XL/2"]
    assert (weights.repo, weights.files) == ("hpcai-tech/OpenSora-STDiT-v3", ("config.json", "model.safetensors"))
    # float32: 1,208,872,772 numbers of 4 bytes
    assert weights.size_gib == pytest.approx(1_208_872_772 * 4 / 2**30, abs=0.05)


def test_missing_frequencies_are_the_formula():
    spec = get_plugins().get("model", "opensora-v1.2")
    torch.manual_seed(0)
    model = build({"hidden_size": 48, "num_heads": 4, "depth": 1, "caption_channels": 8, "model_max_length": 4})
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name != "rope.freqs"}
    mapped = load_attribute(spec.load, what=spec.name)(tensors)
    assert torch.equal(mapped["rope.freqs"], model.rope.freqs)
    assert "rope.freqs" not in tensors, "what was given is not changed"


def test_parameter_counts(manifest):
    model = on_meta(manifest["config"])
    assert sum(p.numel() for p in model.parameters()) == manifest["parameters"]
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == manifest["trainable_parameters"]
    assert sum(t.numel() for t in model.state_dict().values()) == manifest["state_dict_elements"]


@pytest.mark.parametrize(
    ("width", "heads", "total"), [(1152, 16, 1_207_643_972), (1872, 26, 3_182_211_572)], ids=["XL/2", "3B/2"]
)
def test_parameter_count_by_formula(width, heads, total):
    """Per block (8 + 2 r) D^2 + (15 + r) D + 2 d with MLP ratio r = 4 (spec stdit.md 10)."""
    model = on_meta({"hidden_size": width, "num_heads": heads})
    block = 16 * width**2 + 19 * width + 2 * width // heads
    for blocks in (model.spatial_blocks, model.temporal_blocks):
        assert {sum(p.numel() for p in one.parameters()) for one in blocks} == {block}
    assert sum(p.numel() for p in model.parameters()) == total


def test_shared_arithmetic_of_a_block_and_of_the_rest():
    """The whole is the blocks plus the embedders, counted from the configuration alone."""
    width, text, depth = 48, 32, 2
    model = on_meta({"hidden_size": width, "num_heads": 4, "depth": depth, "caption_channels": text})
    scalar = 256 * width + width + width**2 + width
    rest = {
        "patches": 4 * math.prod((1, 2, 2)) * width + width,
        "time and fps": 2 * scalar,
        "t_block": 6 * width**2 + 6 * width,
        "text": text * width + width + width**2 + width,
        "final": 2 * width + (width + 1) * 4 * 8,
        "rotary": width // 4 // 2,
    }
    blocks = 2 * depth * (16 * width**2 + 19 * width + 2 * width // 4)
    assert sum(p.numel() for p in model.parameters()) == blocks + sum(rest.values())
