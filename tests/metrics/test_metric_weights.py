"""Weights of measures: published names, files of something else, what is missing, and `sora pull`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from sora_cli.errors import MissingError, SoraError
from sora_cli.plugin.manager import get_plugins
from sora_cli.plugin.specs import MetricSpec
from sora_cli.weights.locate import LocatedWeights, locate_parts, locate_weights
from sora_plugins.metrics.lpips import Lpips
from sora_plugins.metrics.pwc import PwcNet
from sora_plugins.metrics.trunks import ALEXNET, VGG16, Conv
from sora_plugins.metrics.weights import TRUNKS, lpips_constants, read_lpips, read_pwc

CPU = torch.device("cpu")
NAMES = ["psnr", "ssim", "lpips", "lpips-vgg", "flolpips"]


def spec(name: str) -> MetricSpec:
    found = get_plugins().get("metric", name)
    assert isinstance(found, MetricSpec)
    return found


def located(path: Path) -> LocatedWeights:
    found = locate_weights(None, what="a measure", override=str(path))
    assert found is not None
    return found


def torchvision_names(part: str) -> dict[str, torch.Tensor]:
    """Random weights as torchvision's classifier has them."""
    torch.manual_seed(2)
    tensors = {"classifier.1.weight": torch.rand(4, 4), "classifier.1.bias": torch.rand(4)}
    number = 0
    for layer in (layer for layers in TRUNKS[part].slices for layer in layers):
        if isinstance(layer, Conv):
            convolution = nn.Conv2d(*layer)
            tensors |= {f"features.{number}.{name}": value.data for name, value in convolution.named_parameters()}
        number += 2 if isinstance(layer, Conv) else 1  # a ReLU behind every convolution
    return tensors


@pytest.fixture
def given(tmp_path: Path) -> dict[str, str]:
    """Files of random weights for every part, as they are published."""
    for part in TRUNKS:
        torch.save(torchvision_names(part), tmp_path / f"{part}.pth")
    flow = {name.replace("net", "module"): tensor for name, tensor in PwcNet().state_dict().items()}
    torch.save(flow, tmp_path / "pwc.pytorch")
    return {"alexnet": f"{tmp_path}/alexnet.pth", "vgg16": f"{tmp_path}/vgg16.pth", "pwc": f"{tmp_path}/pwc.pytorch"}


def test_the_specs() -> None:
    specs = get_plugins().specs("metric")
    assert set(NAMES) <= set(specs)
    assert {name: set(spec(name).weights) for name in NAMES} == {
        "psnr": set(),
        "ssim": set(),
        "lpips": {"alexnet"},
        "lpips-vgg": {"vgg16"},
        "flolpips": {"alexnet", "pwc"},
    }
    assert [name for name in NAMES if spec(name).higher_is_better] == ["psnr", "ssim"]


@pytest.mark.parametrize("name", NAMES)
def test_from_the_spec_to_values(name: str, given: dict[str, str]) -> None:
    weights = locate_parts(spec(name).weights, what=name, overrides=given, option="--metric-weights")
    metric = get_plugins().load_target(spec(name))(weights, CPU)
    reference, video = torch.rand(2, 1, 3, 3, 36, 40)
    values = metric(reference, video)
    assert values.shape == (1, 3 - metric.overlap)
    assert values.isfinite().all()


def test_torchvision_names_and_whole_networks(given: dict[str, str], tmp_path: Path) -> None:
    for part, config in (("alexnet", ALEXNET), ("vgg16", VGG16)):
        network = read_lpips(part, located(Path(given[part])), CPU)
        assert network.config is config
        published = torchvision_names(part)
        named = {name.split(".", 2)[2]: tensor for name, tensor in network.net.state_dict(prefix="net.").items()}
        assert named.keys() == {name.removeprefix("features.") for name in published if name.startswith("features.")}
        assert all(torch.equal(tensor, published[f"features.{name}"]) for name, tensor in named.items())
        assert torch.equal(network.state_dict()["lin0.model.1.weight"], lpips_constants(part)["lin0.model.1.weight"])
        assert not network.training
        whole = {name: torch.rand_like(tensor) for name, tensor in network.state_dict().items()}
        lins = {name.replace("lin", "lins.", 1): tensor.clone() for name, tensor in whole.items() if name[:3] == "lin"}
        save_file({**whole, **lins}, tmp_path / f"whole-{part}.safetensors")
        again = read_lpips(part, located(tmp_path / f"whole-{part}.safetensors"), CPU, torch.bfloat16)
        assert torch.equal(again.state_dict()["lin4.model.1.weight"], whole["lin4.model.1.weight"])
        assert again.net.get_parameter("slice1.0.weight").dtype == torch.bfloat16


def test_files_of_something_else(given: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(SoraError, match=r"vgg16\.pth are not those of AlexNet") as caught:
        read_lpips("alexnet", located(Path(given["vgg16"])), CPU)
    assert "--metric-weights alexnet=FILE" in str(caught.value.hint)
    assert "missing" in str(caught.value.hint)
    with pytest.raises(SoraError, match=r"alexnet\.pth are not those of PWC-Net"):
        read_pwc(located(Path(given["alexnet"])), CPU)
    torch.save({"state": nn.Linear(2, 2)}, tmp_path / "objects.pth")
    with pytest.raises(SoraError, match="more than tensors"):
        read_lpips("vgg16", located(tmp_path / "objects.pth"), CPU)


@pytest.mark.parametrize(
    ("name", "file", "address", "option"),
    [
        ("lpips", "alexnet-owt-7be5be79.pth", "https://download.pytorch.org/models/", "alexnet=FILE"),
        ("lpips-vgg", "vgg16-397923af.pth", "https://download.pytorch.org/models/", "vgg16=FILE"),
        ("flolpips", "network-default.pytorch", "content.sniklaus.com/github/pytorch-pwc/", "pwc=FILE"),
    ],
)
def test_missing_weights(name: str, file: str, address: str, option: str, given: dict[str, str]) -> None:
    """The tests have no network: HF_HUB_OFFLINE is set."""
    own = {"alexnet": given["alexnet"]} if name == "flolpips" else {}
    with pytest.raises(MissingError, match=file) as caught:
        locate_parts(spec(name).weights, what=name, overrides=own, option="--metric-weights")
    assert caught.value.exit_code == 3
    assert f"{address}{file}" in str(caught.value.hint)
    assert f"--metric-weights {option}" in str(caught.value.hint)


def test_pull(sora: Callable[..., Any]) -> None:
    rows = json.loads(sora("pull", "lpips", "lpips-vgg", "--dry-run", "--json").out)
    assert [row["urls"] for row in rows] == [
        ["https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"],
        ["https://download.pytorch.org/models/vgg16-397923af.pth"],
    ]
    assert "would be downloaded, about 0.2 GiB" in sora("pull", "lpips", "--dry-run").out
    by_hand = sora("pull", "flolpips", "--dry-run")
    assert by_hand.code == 0
    assert "network-default.pytorch, which cannot be downloaded for you" in by_hand.err
    assert "psnr needs no download" in sora("pull", "psnr").err
    offline = sora("pull", "lpips")
    assert offline.code == 3
    assert "HF_HUB_OFFLINE is set" in offline.err
    assert "--metric-weights alexnet=FILE" in offline.err


@pytest.mark.parametrize(
    ("part", "published"),
    [
        ("alexnet", "718a8b40b0d22f96192d34ab93c0db5c7943558ff6c2407f44812dce2f29b5f4"),
        ("vgg16", "9153a2043dccf3b525d4f13db916e93ef040548ea923b6f2100de5ebac141a78"),
    ],
)
def test_the_channel_weights_are_the_published_ones(part: str, published: str) -> None:
    """SHA-256 of the float32 numbers in lpips 0.1.4's weights/v0.1, one after the other; the README has its MD5."""
    tensors = lpips_constants(part)
    linear = [tensors[f"lin{tap}.model.1.weight"] for tap in range(5)]
    assert [tensor.shape[1] for tensor in linear] == list(TRUNKS[part].channels)
    assert all((tensor >= 0).all() for tensor in linear)
    digest = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in linear)).hexdigest()
    assert digest == published
    assert "Richard Zhang" in (files("sora_plugins.metrics") / "linear" / "LICENSE").read_text()
    assert Lpips(TRUNKS[part]).state_dict().keys() >= tensors.keys()
