"""Golden topic `interp_amt`: the picture between two, and the flows that lead to it."""

from __future__ import annotations

import pytest
import torch
from filled import draws, filled
from loader import cases, load_tensors, read

from sora_plugins.interpolation import amt

TOPIC = "interp_amt"


@pytest.mark.parametrize("case", cases(TOPIC, "cases"))
def test_between(case):
    model = case["model"]
    assert model["corr_radius"] == amt.CORRELATION_RADIUS
    assert model["corr_lvls"] == amt.CORRELATION_LEVELS
    assert (model["num_flows"], tuple(model["channels"]), model["skip_channels"]) == (
        amt.FIELDS,
        amt.CHANNELS,
        amt.SIDE,
    )
    network = amt.AmtG().eval()
    weights = filled(network.state_dict(), case["gain"])
    assert (len(weights), sum(tensor.numel() for tensor in weights.values())) == (259, 30_638_919)
    network.load_state_dict(weights, strict=True)
    updates = {}
    for level, name in ((4, "update4"), (3, "update3_high"), (2, "update2_high")):
        network.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, level=level: updates.__setitem__(level, output)
        )
    tensors = load_tensors(TOPIC, "cases.safetensors")
    name, stride = case["name"], case["out_stride"]
    first, second = (tensors[f"{name}.image{i}_u8"] / 255 for i in range(2))
    with torch.inference_mode():
        out = network(first, second, time=case["time"], scale=case["scale_factor"])
    actual = {"out": out[..., ::stride, ::stride], "ft3_head": updates[4].feature[:, :8]}
    actual |= {f"flow0_lvl{level}": updates[level].flow0 for level in (2, 3, 4)}
    assert {f"{name}.{key}" for key in actual} == {key for key in case["tensors"] if not key.endswith("_u8")}
    for key, tensor in actual.items():
        torch.testing.assert_close(tensor, tensors[f"{name}.{key}"], atol=case["tolerance"], rtol=0)


def test_rule_of_the_weights():
    check = read(TOPIC, "cases")["fill_check"]
    assert list(draws(check["key"], 4)) == pytest.approx(check["first_draws"], rel=0, abs=0)
