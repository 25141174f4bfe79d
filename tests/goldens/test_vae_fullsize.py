"""Golden topic `vae_fullsize`: both networks at their real widths."""

from __future__ import annotations

import functools

import pytest
import torch
from checks import check_tensors
from loader import cases, load_tensors, read
from recipe import standard
from torch import Tensor

from sora_plugins.opensora_vae.model import VideoAutoencoder
from sora_plugins.sd_vae import slabs
from sora_plugins.sd_vae.gaussian import DiagonalGaussian

TOPIC, GROUP = "vae_fullsize", "full_v1_2"


@functools.lru_cache(maxsize=1)
def full_network() -> VideoAutoencoder:
    """With the weights of the recipe, whose keys are the full names."""
    with torch.device("meta"):
        made = VideoAutoencoder()
    recipe = read(TOPIC, GROUP)["weight_recipe"]
    shapes = {name: tuple(parameter.shape) for name, parameter in made.named_parameters()}
    tensors = standard(made, recipe["seed"], recipe["gain"], shapes)
    for name, check in recipe["check"].items():
        assert tensors[name].flatten()[:4].tolist() == pytest.approx(check["first4"])
        assert float(tensors[name].double().sum()) == pytest.approx(check["sum"], abs=1e-4)
    made.load_state_dict(
        {**tensors, "shift": torch.zeros(1, 4, 1, 1, 1), "scale": torch.ones(1, 4, 1, 1, 1)}, assign=True
    )
    return made.eval()


def run(params: dict, made: VideoAutoencoder, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    match params["op"]:
        case "temporal_encode":
            posterior = made.temporal_vae.encode(inputs["x"][:, :, : params["T"]])
        case "temporal_decode":
            return {"y": made.temporal_vae.decode(inputs["z"][:, :, : params["L"]], params["num_frames"])}
        case "spatial_moments":
            posterior = DiagonalGaussian(made.spatial_vae.module.moments(inputs["x"]))
        case "spatial_decode_unscaled":
            return {"y": made.spatial_vae.module.decode(inputs["z"])}
        case other:
            raise AssertionError(f"unknown operation {other}")
    return {"mean": posterior.mean, "logvar": posterior.logvar}


@pytest.mark.parametrize("case", cases(TOPIC, GROUP))
def test_real_widths(case):
    tensors = load_tensors(TOPIC, read(TOPIC, GROUP)["tensors"])
    inputs = {name: tensors[key] for name, key in case["inputs"].items()}
    with torch.inference_mode():
        check_tensors(case, tensors, run(case["params"], full_network(), inputs))


@pytest.mark.parametrize("case", cases(TOPIC, GROUP))
def test_real_widths_in_slabs(case, monkeypatch):
    monkeypatch.setattr(slabs, "SLAB_BYTES", 1_000_000)
    monkeypatch.setattr(slabs, "QUERIES_AT_ONCE", 50)
    network = full_network()
    network.set_memory_mode("low")
    try:
        test_real_widths(case)
    finally:
        network.set_memory_mode("plain")
