"""Golden topic `stdit3`: the whole network, its inner values and its gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from loader import cases, load_tensors, read
from torch import Tensor

from sora_plugins.stdit.stdit3 import STDiT3, build

TOPIC = "stdit3"
INDEX = cases(TOPIC, "index")


def having(field: str) -> list[Any]:
    """The parameters whose case has this field; those of an absent topic stay, skipped."""
    return [parameter for parameter in INDEX if field in parameter.values[0] or not parameter.values[0]]


def load_network(case: dict[str, Any]) -> STDiT3:
    """The network of a case, strictly with its tensors."""
    weights = load_tensors(TOPIC, read(TOPIC, "index")["weights"][case["weights"]]["file"])
    torch.manual_seed(0)
    model = build(case["config"])
    model.load_state_dict(weights, strict=True)
    return model.train(case["mode"] == "train")


def arguments(case: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Tensor | None]:
    given = {name.removeprefix("in."): tensor for name, tensor in tensors.items() if name.startswith("in.")}
    given.setdefault("mask", None)
    if "force_drop_ids" in given:
        given["drop_ids"] = given.pop("force_drop_ids")
    if "extra keywords" in case["note"]:
        given |= {"num_frames": torch.full((2,), 17.0), "ar": torch.ones(2)}
    return given


def close(actual: Tensor, expected: Tensor, tolerance: dict[str, float], what: str) -> None:
    torch.testing.assert_close(
        actual, expected, atol=tolerance["atol"], rtol=tolerance["rtol"], msg=lambda message: f"{what}: {message}"
    )


@pytest.mark.parametrize("case", INDEX)
def test_forward(case):
    tensors = load_tensors(TOPIC, case["file"])
    with torch.no_grad():
        out = load_network(case)(**arguments(case, tensors))
    close(out, tensors[case.get("wanted", "out")], case["tolerance"], case["name"])


# --- inner values ------------------------------------------------------------------------------------------------


def flat(name: str, value: Tensor) -> Tensor:
    """Our (B, T, S, D) in the layout of the golden: one row of tokens per sample, or per attended sequence."""
    if value.dim() != 4 or name == "y_embedder":
        return value
    if name.endswith(".attn"):
        return (value if name.startswith("spatial") else value.transpose(1, 2)).flatten(0, 1)
    return value.flatten(1, 2)


@pytest.mark.parametrize("case", [p for p in INDEX if p.values[0].get("name") in (None, "base", "x_mask")])
def test_trace(case):
    tensors = load_tensors(TOPIC, case["file"])
    model, given = load_network(case), arguments(case, tensors)
    expected = {name.removeprefix("trace."): value for name, value in tensors.items() if name.startswith("trace.")}
    assert expected
    seen: dict[str, list[Tensor]] = {}
    modules = dict(model.named_modules())
    for name in {name.removesuffix("_t0") for name in expected} - {"pos_embed"}:
        seen[name] = []
        modules[name].register_forward_hook(lambda _module, _args, out, kept=seen[name]: kept.append(out))
    with torch.no_grad():
        model(**given)
        if "pos_embed" in expected:
            sides = zip(given["x"].shape[2:], model.config.patch_size, strict=True)
            grid = [-(-side // patch) for side, patch in sides]
            seen["pos_embed"] = [model.position_table(grid, given["height"], given["width"], torch.device("cpu"))[0]]
    for name, value in expected.items():
        # timestep 0 goes through the same layer in a second call
        call = int(name.endswith("_t0"))
        close(flat(name, seen[name.removesuffix("_t0")][call]), value, case["tolerance"], name)


# --- gradients ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", having("backward"))
def test_gradients(case):
    tensors, wanted = load_tensors(TOPIC, case["file"]), case["backward"]
    tolerance = wanted["tolerance"]
    model, given = load_network(case), arguments(case, tensors)
    for name in ("x", "y"):
        given[name].requires_grad_()
    loss = (model(**given) * tensors["grad.cotangent"]).mean()
    loss.backward()
    assert loss.item() == pytest.approx(wanted["loss_value"], abs=tolerance["atol"])

    gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    norms = {name: gradient.norm().item() for name, gradient in gradients.items()}
    assert norms == pytest.approx(wanted["grad_l2_norms"], rel=tolerance["rtol_norm"])
    for name in ("x", "y"):
        assert given[name].grad.norm().item() == pytest.approx(wanted[f"grad_{name}_l2"], rel=tolerance["rtol_norm"])
        close(given[name].grad, tensors[f"grad.{name}"], tolerance, name)
    full = [name for name in tensors if name.startswith("grad.param.")]
    assert len(full) == 15
    for name in full:
        close(gradients[name.removeprefix("grad.param.")], tensors[name], tolerance, name)


# --- number formats ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", having("reference_bf16_rel_l2_error"))
def test_bfloat16(case):
    """Times, sizes and position codes stay in float32, so the error is below the reference's own (0.0095)."""
    tensors = load_tensors(TOPIC, case["file"])
    model = load_network(case).bfloat16()
    with torch.no_grad():
        out = model(**arguments(case, tensors))
    assert out.dtype == torch.float32
    error = ((out - tensors["out"]).norm() / tensors["out"].norm()).item()
    assert 0 < error < case["reference_bf16_rel_l2_error"]
