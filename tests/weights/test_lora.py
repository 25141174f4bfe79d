"""Adapters: found in their three places, merged, refused where they do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sora_cli.errors import SoraError, UsageError
from sora_cli.training.checkpoint import Checkpointer
from sora_cli.weights.lora import locate_lora, merge_loras, peft_config, peft_names

SETTINGS = {"rank": 2, "alpha": 8.0, "dropout": 0.0, "targets": []}


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "blocks.0.qkv.weight": torch.randn(6, 4),
        "blocks.0.qkv.bias": torch.randn(6),
        "out.weight": torch.randn(4, 4),
    }


@pytest.fixture
def adapter() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {
        "blocks.0.qkv.lora_A.default.weight": torch.randn(2, 4),
        "blocks.0.qkv.lora_B.default.weight": torch.randn(6, 2),
    }


def places(folder: Path, adapter: dict[str, torch.Tensor]) -> list[Path]:
    """The same adapter as a run, a file and a folder of peft."""
    checkpoints = Checkpointer(folder / "run")
    checkpoints.save(
        5, {"ema": adapter, "model": {name: 2 * value for name, value in adapter.items()}}, {"lora": SETTINGS}
    )
    checkpoints.wait()
    named = peft_names(adapter)
    save_file(named, folder / "one.safetensors", metadata={"lora": json.dumps(SETTINGS)})
    (folder / "peft").mkdir()
    save_file(named, folder / "peft" / "adapter_model.safetensors")
    (folder / "peft" / "adapter_config.json").write_text(json.dumps(peft_config(SETTINGS, ["blocks.0.qkv"])))
    return [folder / "run", folder / "run" / "step-5", folder / "one.safetensors", folder / "peft"]


def test_all_places_give_the_same_weights(tmp_path: Path, weights, adapter):
    down, up = adapter.values()
    expected = weights["blocks.0.qkv.weight"] + 0.5 * 8.0 / 2 * up @ down
    for place in places(tmp_path, adapter):
        merged = merge_loras(weights, [locate_lora(f"{place}:0.5")])
        torch.testing.assert_close(merged["blocks.0.qkv.weight"], expected)
        assert merged["out.weight"] is weights["out.weight"]
    last = merge_loras(weights, [locate_lora(str(tmp_path / "run"), raw=True)])["blocks.0.qkv.weight"]
    torch.testing.assert_close(last - weights["blocks.0.qkv.weight"], 4 * 8.0 / 2 * up @ down)


def test_two_adapters_add_up_and_the_format_stays(tmp_path: Path, weights, adapter):
    place = str(places(tmp_path, adapter)[2])
    rough = {name: tensor.bfloat16() for name, tensor in weights.items()}
    merged = merge_loras(rough, [locate_lora(place), locate_lora(f"{place}:-1")])
    assert merged["blocks.0.qkv.weight"].dtype == torch.bfloat16
    torch.testing.assert_close(merged["blocks.0.qkv.weight"], rough["blocks.0.qkv.weight"], rtol=0.02, atol=0.1)


def test_what_peft_writes_is_read(tmp_path: Path, weights, adapter):
    peft = pytest.importorskip("peft", reason="the extra train")

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = torch.nn.Linear(4, 6)

    torch.manual_seed(3)
    network = Network()
    before = network.state_dict()["qkv.weight"].clone()
    wrapped = peft.get_peft_model(network, peft.LoraConfig(r=2, lora_alpha=8, target_modules=["qkv"]))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    wrapped.save_pretrained(str(tmp_path / "saved"))
    merged = merge_loras({"qkv.weight": before}, [locate_lora(str(tmp_path / "saved"))])
    torch.testing.assert_close(merged["qkv.weight"], wrapped.merge_and_unload().qkv.weight.detach())


def test_what_does_not_fit(tmp_path: Path, weights, adapter):
    place = str(places(tmp_path, adapter)[2])
    with pytest.raises(SoraError, match=r"of another network: blocks\.0\.qkv\.weight is \(4, 6\)"):
        merge_loras({"blocks.0.qkv.weight": torch.zeros(4, 6)}, [locate_lora(place)])
    with pytest.raises(SoraError, match="is not there"):
        merge_loras({}, [locate_lora(place)])
    with pytest.raises(UsageError, match="is no scale"):
        locate_lora(f"{place}:much")
    with pytest.raises(UsageError, match="no adapter at"):
        locate_lora(str(tmp_path / "absent"))
    save_file(load_file(place), tmp_path / "plain.safetensors")
    with pytest.raises(UsageError, match="does not say the rank"):
        locate_lora(str(tmp_path / "plain.safetensors"))
