"""Golden topic `checkpoint_convert`: foreign checkpoints as the network takes them."""

from __future__ import annotations

import pytest
import torch
from loader import cases, load_tensors

from sora_cli.weights.load import read_tensors
from sora_plugins.stdit.adapt import adapt_tensors


@pytest.mark.parametrize("case", cases("checkpoint_convert", "convert"))
def test_conversion(case, tmp_path):
    tensors = load_tensors("checkpoint_convert", "convert.safetensors")

    def part(name):
        start = f"case{case['case']}.{name}."
        return {key.removeprefix(start): tensor for key, tensor in tensors.items() if key.startswith(start)}

    before, after = part("before"), part("after")
    assert sorted(before) == case["keys_before"]
    file = tmp_path / "weights.pth"  # through a file, as a user has it
    torch.save({case["nested_under"]: before} if case["nested_under"] else before, file)
    adapted = adapt_tensors(
        read_tensors([file]),
        text_tokens=case["target_text_tokens"],
        has_spatial_blocks=case["target_model"] == "STDiT3",
    )
    assert sorted(adapted) == case["keys_after"]
    for name, tensor in adapted.items():
        assert torch.equal(tensor, after[name]), name
