"""Golden topic `vae_discriminator`: outputs, gradients, running statistics and blur of the discriminators."""

from __future__ import annotations

import pytest
from checks import check_gradients, check_tensors, close
from loader import cases, load_tensors, read
from recipe import standard

from sora_plugins.discriminators.config import PatchOptions, StyleOptions
from sora_plugins.discriminators.patch import PatchDiscriminator
from sora_plugins.discriminators.stylegan import BlurPool3d, StyleDiscriminator

TOPIC = "vae_discriminator"
PATCH_FILES = ("patch2d", "patch3d")


def patch(file: str) -> PatchDiscriminator:
    described = read(TOPIC, file)
    config = described["config"]
    options = PatchOptions(in_channels=config["input_nc"], filters=config["ndf"], num_layers=config["n_layers"])
    network = PatchDiscriminator(options, is_3d=config["type"].endswith("3D"))
    network.load_state_dict(load_tensors(TOPIC, described["weights"]), strict=True)
    return network


@pytest.mark.parametrize(
    ("file", "case"), [pytest.param(f, *c.values, id=c.id) for f in PATCH_FILES for c in cases(TOPIC, f)]
)
def test_patches(file, case):
    network, tensors = patch(file), load_tensors(TOPIC, read(TOPIC, file)["tensors"])
    x = tensors[case["inputs"]["x"]].requires_grad_()
    network.train(case["params"]["mode"] == "train")
    y = network(x)
    actual = {"y": y}
    if "r" in case["inputs"]:
        (y * tensors[case["inputs"]["r"]]).sum().backward()
        actual["grad_x"] = x.grad
        actual |= {f"buffer:{name}": buffer for name, buffer in network.named_buffers()}
        check_gradients(case, network)
    check_tensors(case, tensors, actual)


@pytest.mark.parametrize("case", cases(TOPIC, "stylegan3d"))
def test_style(case):
    described = read(TOPIC, "stylegan3d")
    config, recipe = described["config"], described["weight_recipe"]
    tensors = load_tensors(TOPIC, described["tensors"])
    options = StyleOptions(
        in_channels=config["in_channels"],
        filters=config["filters"],
        channel_multipliers=tuple(config["channel_multipliers"]),
        num_groups=config["num_groups"],
    )
    height, width = config["image_size"]
    network = StyleDiscriminator(options, num_frames=config["num_frames"], height=height, width=width)
    filters = dict(network.named_buffers())
    assert {name: list(tensor.shape) for name, tensor in network.state_dict().items()} == recipe["keys"]
    drawn = standard(network, recipe["seed"], recipe["gain"], recipe["keys"])
    network.load_state_dict({**drawn, **filters}, strict=True)
    x = tensors[case["inputs"]["x"]].requires_grad_()
    y = network(x)
    check_tensors(case, tensors, {"y": y})
    y.sum().backward()
    close(case, x.grad.norm(), case["expected_scalars"]["grad_x_l2"], "gradient")
    assert sum(parameter.numel() for parameter in network.parameters()) == case["expected_scalars"]["params"]


@pytest.mark.parametrize("case", cases(TOPIC, "blur"))
def test_blur(case):
    params, tensors = case["params"], load_tensors(TOPIC, read(TOPIC, "blur")["tensors"])
    blur = BlurPool3d(params["channels"], params["filt_size"], params["stride"])
    assert list(blur.pads) == params["pads"]
    check_tensors(case, tensors, {"y": blur(tensors[case["inputs"]["x"]]), "filt": blur.filt[0, 0]})
