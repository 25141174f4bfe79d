"""Golden topic `vae_spatial`: the autoencoder of single frames, and the temporal decoder."""

from __future__ import annotations

import pytest
import torch
from checks import check_gradients, check_tensors, close, record_outputs
from loader import cases, load_tensors, of_operations, read
from recipe import standard

from sora_plugins.sd_vae import slabs
from sora_plugins.sd_vae.config import SpatialConfig
from sora_plugins.sd_vae.gaussian import DiagonalGaussian
from sora_plugins.sd_vae.model import FrameAutoencoder, SpatialAutoencoder
from sora_plugins.sd_vae.temporal_decoder import TemporalDecoderAutoencoder, TemporalDecoderNetwork
from sora_plugins.sd_vae.weights import modern_names

TOPIC = "vae_spatial"


def spatial() -> tuple[SpatialAutoencoder, dict[str, torch.Tensor]]:
    described = read(TOPIC, "tiny_f8")
    network = SpatialAutoencoder(SpatialConfig.from_mapping(described["config"]))
    network.load_state_dict(load_tensors(TOPIC, described["weights"]), strict=True)
    return network, load_tensors(TOPIC, described["tensors"])


@pytest.mark.parametrize("case", cases(TOPIC, "tiny_f8"))
def test_spatial_autoencoder(case):
    params = case["params"]
    if params["op"] == "key_map":
        old = {name: torch.zeros(()) for name in params["map"]}
        assert list(modern_names(old)) == list(params["map"].values())
        return
    network, tensors = spatial()
    inputs = {name: tensors[key] for name, key in case["inputs"].items()}
    OPERATIONS[params["op"]](case, network, tensors, inputs)


def moments(case, network, tensors, inputs):
    with torch.inference_mode():
        x = inputs["x"]
        rows = DiagonalGaussian(network.moments(x.transpose(1, 2).flatten(0, 1) if x.dim() == 5 else x))
        actual = {"mean": rows.mean, "logvar": rows.logvar}
        if tensors[case["expected"]["mean"]].dim() == 5:
            actual = {name: row.unflatten(0, (len(x), -1)).transpose(1, 2) for name, row in actual.items()}
    check_tensors(case, tensors, actual)


def video(case, network, tensors, inputs):
    params = case["params"]
    frames = FrameAutoencoder(network, params["scaling_factor"])
    with torch.inference_mode():
        x, z = inputs["x"], inputs["z"]
        encoded = frames.encode(x, noise=inputs["noise"], frames_at_once=params["micro_batch_size"])
        decoded = torch.cat(list(frames.decode(z, z.shape[2], frames_at_once=params["micro_batch_size"])), dim=2)
    assert list(encoded.shape[2:]) == params["latent_size"]
    check_tensors(case, tensors, {"encode": encoded, "decode": decoded})


def trace(case, network, tensors, inputs):
    ends = {}

    def run() -> None:
        ends["mean"] = DiagonalGaussian(network.moments(inputs["x"])).mean
        ends["y"] = network.decode(ends["mean"])

    check_tensors(case, tensors, {**record_outputs(network, case["params"]["order"], run), **ends})


def gradients(case, network, tensors, inputs):
    x = inputs["x"].clone().requires_grad_()
    posterior = DiagonalGaussian(network.moments(x[:1, :, 0]))
    y = network.decode(posterior.mean)
    loss = (y * inputs["r"]).sum() + 0.1 * posterior.kl().sum()
    loss.backward()
    assert x.grad is not None
    gradient = x.grad if tensors[case["expected"]["grad_x"]].dim() == 5 else x.grad[:1, :, 0]
    check_tensors(case, tensors, {"y": y, "grad_x": gradient})
    close(case, loss.detach(), case["expected_scalars"]["loss"], "loss")
    check_gradients(case, network)


OPERATIONS = {"moments_per_frame": moments, "video_encode_decode": video, "trace": trace, "grad": gradients}


@pytest.mark.parametrize("case", of_operations(cases(TOPIC, "tiny_f8"), "moments_per_frame", "video_encode_decode"))
def test_in_slabs(case, monkeypatch):
    monkeypatch.setattr(slabs, "SLAB_BYTES", 2000)
    network, tensors = spatial()
    network.set_memory_mode("low")
    inputs = {name: tensors[key] for name, key in case["inputs"].items()}
    OPERATIONS[case["params"]["op"]](case, network, tensors, inputs)


@pytest.mark.parametrize("case", cases(TOPIC, "temporal_decoder"))
def test_temporal_decoder(case):
    described = read(TOPIC, "temporal_decoder")
    recipe = described["weight_recipe"]
    network = TemporalDecoderNetwork(SpatialConfig.from_mapping(described["config"]))
    filled = standard(network, recipe["seed"], recipe["gain"], recipe["keys"])
    network.load_state_dict(filled, strict=True)
    tensors = load_tensors(TOPIC, described["tensors"])
    frames = case["params"]["T"]
    with torch.inference_mode():
        [y] = TemporalDecoderAutoencoder(network, 0.18215).decode(tensors[case["inputs"]["z"]][:, :, :frames], frames)
    check_tensors(case, tensors, {"y": y})
