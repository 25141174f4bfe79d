"""The network has the tensors of the released checkpoints: names, shapes, formats and numbers of parameters."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
import torch

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
