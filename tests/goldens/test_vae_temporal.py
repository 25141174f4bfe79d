"""Golden topic `vae_temporal`: the temporal autoencoder and its layers."""

from __future__ import annotations

import pytest
import torch
from checks import check_gradients, check_tensors, close, record_outputs
from loader import cases, load_tensors, of_operations, read

from sora_plugins.opensora_vae.config import TemporalConfig
from sora_plugins.opensora_vae.temporal import (
    ACTIVATIONS,
    CausalConv3d,
    TemporalAutoencoder,
    TemporalResidualBlock,
    depth_to_space_time,
)
from sora_plugins.sd_vae import slabs
from sora_plugins.sd_vae.gaussian import DiagonalGaussian

TOPIC = "vae_temporal"
NETWORKS = ("v12_like", "alt_topology")


def network(group: str) -> TemporalAutoencoder:
    described = read(TOPIC, group)
    made = TemporalAutoencoder(TemporalConfig.from_mapping(described["config"]))
    made.load_state_dict(load_tensors(TOPIC, described["weights"]), strict=True)
    return made


def encode(case, made, tensors, inputs):
    params = case["params"]
    x = inputs["x"][:, :, : params["T"]]
    with torch.inference_mode():
        posterior = made.encode(x)
    check_tensors(case, tensors, {"mean": posterior.mean, "logvar": posterior.logvar})
    close(case, posterior.kl(), case["expected_scalars"]["kl"], "kl")
    assert posterior.mean.shape[2] == params["latent_frames"]
    assert list(made.get_latent_size(tuple(x.shape[2:]))) == params["get_latent_size_out"]


def decode(case, made, tensors, inputs):
    params = case["params"]
    with torch.inference_mode():
        y = made.decode(inputs["z"][:, :, : params["L"]], params["num_frames"])
    assert y.shape[2] == params["out_frames"]
    check_tensors(case, tensors, {"y": y})


def posterior_values(case, made, tensors, inputs):
    with torch.inference_mode():
        x = inputs["x"][:, :, : case["params"]["T"]]
        posterior = made.encode(x)
        sample = posterior.sample(inputs["noise"])
        actual = {"sample": sample, "std": posterior.std, "var": posterior.var, "mode": posterior.mode()}
        check_tensors(case, tensors, actual)
        close(case, posterior.kl(), case["expected_scalars"]["kl"], "kl")
        close(case, posterior.nll(sample), case["expected_scalars"]["nll"], "nll")


def distribution(case, made, tensors, inputs):
    gaussian = DiagonalGaussian(inputs["moments"])
    check_tensors(case, tensors, {"mean": gaussian.mean, "logvar": gaussian.logvar, "std": gaussian.std})


def kl_of_two(case, made, tensors, inputs):
    p, q = (DiagonalGaussian(inputs[name]) for name in ("moments_p", "moments_q"))
    close(case, p.kl(q), case["expected_scalars"]["kl"], "kl")


def gradients(case, made, tensors, inputs):
    x = inputs["x"][:, :, : case["params"]["T"]].clone().requires_grad_()
    reconstruction, posterior, _ = made(x, sample=case["params"]["sample_posterior"])
    loss = (reconstruction * inputs["r"]).sum() + 0.1 * posterior.kl().sum()
    loss.backward()
    assert x.grad is not None
    check_tensors(case, tensors, {"rec": reconstruction, "grad_x": x.grad})
    close(case, loss.detach(), case["expected_scalars"]["loss"], "loss")
    check_gradients(case, made)


def trace(case, made, tensors, inputs):
    ends = {}

    def run() -> None:
        ends["mean"] = made.encode(inputs["x"]).mean
        ends["y"] = made.decode(ends["mean"], case["params"]["T"])

    check_tensors(case, tensors, {**record_outputs(made, case["params"]["order"], run), **ends})


OPERATIONS = {
    "encode": encode,
    "decode": decode,
    "posterior": posterior_values,
    "distribution": distribution,
    "kl_two": kl_of_two,
    "forward_grad": gradients,
    "trace": trace,
}


@pytest.mark.parametrize(("group", "case"), [(g, *p.values) for g in NETWORKS for p in cases(TOPIC, g)])
def test_network(group, case):
    if not case:
        pytest.skip(f"golden topic {TOPIC!r} is absent")
    tensors = load_tensors(TOPIC, read(TOPIC, group)["tensors"])
    inputs = {name: tensors[key] for name, key in case["inputs"].items()}
    OPERATIONS[case["params"]["op"]](case, network(group), tensors, inputs)


@pytest.mark.parametrize(
    ("group", "case"),
    [(g, *p.values) for g in NETWORKS for p in of_operations(cases(TOPIC, g), "encode", "decode", "posterior")],
)
def test_in_slabs(group, case, monkeypatch):
    if not case:
        pytest.skip(f"golden topic {TOPIC!r} is absent")
    monkeypatch.setattr(slabs, "SLAB_BYTES", 2000)
    tensors = load_tensors(TOPIC, read(TOPIC, group)["tensors"])
    inputs = {name: tensors[key] for name, key in case["inputs"].items()}
    made = network(group)
    made.uses_slabs = True
    OPERATIONS[case["params"]["op"]](case, made, tensors, inputs)


@pytest.mark.parametrize("case", cases(TOPIC, "layers"))
def test_layer(case):
    tensors = load_tensors(TOPIC, read(TOPIC, "layers")["tensors"])
    inputs = {name: tensors[key] for name, key in case["inputs"].items()}
    x = inputs.pop("x")
    params = case["params"]
    layer: torch.nn.Module
    if params["op"] == "depth_to_space_time":
        check_tensors(case, tensors, {"y": depth_to_space_time(x, params["ts"], params["hs"], params["ws"])})
        return
    if params["op"] == "causal_conv3d":
        kernel = params["kernel_size"]
        strides = params.get("strides")
        layer = CausalConv3d(
            params["chan_in"],
            params["chan_out"],
            kernel if isinstance(kernel, int) else tuple(kernel),
            pad_mode=params.get("pad_mode", "constant"),
            time_stride=params.get("stride", 1),
            dilation=params.get("dilation", 1),
            strides=tuple(strides) if strides else None,
            bias=params.get("bias", True),
        )
        assert list(layer.padding) == params["F_pad"]
    else:
        layer = TemporalResidualBlock(
            params["in_channels"],
            params["filters"],
            groups=params["num_groups"],
            activation=ACTIVATIONS[params["activation"]],
            wide_shortcut=params["use_conv_shortcut"],
        )
    layer.load_state_dict(inputs, strict=True)
    with torch.inference_mode():
        check_tensors(case, tensors, {"y": layer(x)})
