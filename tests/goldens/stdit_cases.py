"""Golden cases of the STDiT networks: the whole network, its inner values and its gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from loader import load_tensors, read
from torch import Tensor, nn


class Cases:
    """The cases of a topic on the network that `build` makes."""

    def __init__(
        self,
        topic: str,
        build: Callable[[dict[str, Any]], nn.Module],
        map_tensors: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict,
    ) -> None:
        self.topic, self.build, self.map_tensors = topic, build, map_tensors

    def load_network(self, case: dict[str, Any]) -> Any:
        """The network of a case, strictly with its tensors."""
        weights = load_tensors(self.topic, read(self.topic, "index")["weights"][case["weights"]]["file"])
        torch.manual_seed(0)
        model = self.build(case["config"])
        model.load_state_dict(self.map_tensors(weights), strict=True)
        return model.train(case["mode"] == "train")

    def tensors(self, case: dict[str, Any]) -> dict[str, Tensor]:
        """The tensors of a case."""
        return load_tensors(self.topic, case["file"])

    def check_forward(self, case: dict[str, Any]) -> None:
        """The output."""
        tensors = self.tensors(case)
        with torch.no_grad():
            out = self.load_network(case)(**arguments(case, tensors))
        close(out, tensors[case.get("wanted", "out")], case["tolerance"], case["name"])

    def check_trace(self, case: dict[str, Any]) -> None:
        """The inner values that the case has."""
        tensors = self.tensors(case)
        model, given = self.load_network(case), arguments(case, tensors)
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
                seen["pos_embed"] = [
                    model.position_table(grid, given["height"], given["width"], torch.device("cpu"))[0]
                ]
        for name, value in expected.items():
            # timestep 0 goes through the same layer in a second call
            call = int(name.endswith("_t0"))
            close(flat(name, seen[name.removesuffix("_t0")][call]), value, case["tolerance"], name)

    def check_gradients(self, case: dict[str, Any]) -> None:
        """Loss and gradients."""
        tensors, wanted = self.tensors(case), case["backward"]
        tolerance = wanted["tolerance"]
        model, given = self.load_network(case), arguments(case, tensors)
        for name in ("x", "y"):
            given[name].requires_grad_()
        loss = (model(**given) * tensors["grad.cotangent"]).mean()
        loss.backward()
        assert loss.item() == pytest.approx(wanted["loss_value"], abs=tolerance["atol"])

        gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
        norms = {name: gradient.norm().item() for name, gradient in gradients.items()}
        assert norms == pytest.approx(wanted["grad_l2_norms"], rel=tolerance["rtol_norm"])
        for name in ("x", "y"):
            assert given[name].grad.norm().item() == pytest.approx(
                wanted[f"grad_{name}_l2"], rel=tolerance["rtol_norm"]
            )
            close(given[name].grad, tensors[f"grad.{name}"], tolerance, name)
        full = [name for name in tensors if name.startswith("grad.param.")]
        assert full
        for name in full:
            close(gradients[name.removeprefix("grad.param.")], tensors[name], tolerance, name)


def arguments(case: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Tensor | None]:
    given = {name.removeprefix("in."): tensor for name, tensor in tensors.items() if name.startswith("in.")}
    given.setdefault("mask", None)
    if "force_drop_ids" in given:
        given["drop_ids"] = given.pop("force_drop_ids")
    if "extra keywords" in case.get("note", ""):
        given |= {"num_frames": torch.full((2,), 17.0), "ar": torch.ones(2)}
    return given


def close(actual: Tensor, expected: Tensor, tolerance: dict[str, float], what: str) -> None:
    torch.testing.assert_close(
        actual, expected, atol=tolerance["atol"], rtol=tolerance["rtol"], msg=lambda message: f"{what}: {message}"
    )


def flat(name: str, value: Tensor) -> Tensor:
    """Our (B, T, S, D) in the layout of the golden: one row of tokens per sample, or per attended sequence."""
    if value.dim() != 4 or name == "y_embedder":
        return value
    if name.endswith(".attn"):
        return (value.transpose(1, 2) if name.startswith("temporal") else value).flatten(0, 1)
    if name.endswith(".attn_temp"):
        return value.transpose(1, 2).flatten(0, 1)
    return value.flatten(1, 2)


def having(parameters: list[Any], field: str) -> list[Any]:
    """The parameters whose case has this field; those of an absent topic stay, skipped."""
    return [parameter for parameter in parameters if field in parameter.values[0] or not parameter.values[0]]


def called(parameters: list[Any], *names: str) -> list[Any]:
    """The parameters of the cases with these names; those of an absent topic stay, skipped."""
    return [parameter for parameter in parameters if parameter.values[0].get("name") in (None, *names)]
