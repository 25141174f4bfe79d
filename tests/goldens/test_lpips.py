"""Golden topic `vae_losses`, group `lpips_vgg`: the perceptual part of the training loss."""

from __future__ import annotations

import pytest
import torch
from checks import check_tensors, close
from loader import cases, load_tensors, read
from recipe import lpips_weights

from sora_plugins.metrics.lpips import Lpips
from sora_plugins.metrics.trunks import VGG16

TOPIC, GROUP = "vae_losses", "lpips_vgg"


@pytest.fixture(scope="module")
def network() -> Lpips:
    recipe = read(TOPIC, GROUP)["weight_recipe"]
    network = Lpips(VGG16)
    weights = lpips_weights(recipe["seed"], recipe["keys"])
    missing, unexpected = network.load_state_dict(weights, strict=False)
    assert (sorted(missing), unexpected) == (["scaling_layer.scale", "scaling_layer.shift"], [])
    return network


@pytest.mark.parametrize("case", cases(TOPIC, GROUP))
def test_lpips(case, network):
    assert case["params"]["op"] == "lpips"
    tensors = load_tensors(TOPIC, read(TOPIC, GROUP)["tensors"])
    a, b = (tensors[case["inputs"][name]].clone().requires_grad_() for name in "ab")
    value = network(a, b)
    value.sum().backward()
    with torch.inference_mode():
        taps = network.net(network.scale(a))
        actual = {
            "value": value,
            "per_layer": network.layer_values(a, b),
            "feat_mean": torch.stack([tap.mean() for tap in taps]),
        }
    check_tensors(case, tensors, actual)
    for name, image in (("grad_a_l2", a), ("grad_b_l2", b)):
        close(case, image.grad.norm(), case["expected_scalars"][name], name)
    assert not any(parameter.requires_grad for parameter in network.parameters())
