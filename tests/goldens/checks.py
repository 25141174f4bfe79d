"""Comparing with the numbers of a case."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


def close(case: Mapping[str, Any], actual: Any, expected: Any, what: str = "") -> None:
    """Within the tolerance of the case. expected: a tensor or numbers."""
    actual = torch.as_tensor(actual, dtype=torch.float32)
    expected = torch.as_tensor(expected, dtype=torch.float32)
    torch.testing.assert_close(
        actual, expected, atol=case["atol"], rtol=case["rtol"], msg=lambda message: f"{what}: {message}"
    )


def check_tensors(case: Mapping[str, Any], tensors: Mapping[str, Tensor], actual: Mapping[str, Tensor]) -> None:
    """Every expected tensor of the case has an actual one that is close."""
    assert case["expected"]
    for name, key in case["expected"].items():
        close(case, actual[name].detach(), tensors[key], name)


def check_gradients(case: Mapping[str, Any], network: nn.Module) -> None:
    """The L2 norm of every parameter's gradient is that of the case; "total:NAME" is that of a whole part."""
    parameters = dict(network.named_parameters())
    for name, norm in case["expected_scalars"]["param_grad_l2"].items():
        part = name.removeprefix("total:")
        chosen = [parameters[name]] if part == name else list(network.get_submodule(part).parameters())
        squares = [parameter.grad.double().square().sum() for parameter in chosen if parameter.grad is not None]
        close(case, sum(squares, torch.zeros(())).sqrt(), norm, f"gradient of {name}")


def record_outputs(network: nn.Module, names: Iterable[str], run: Callable[[], object]) -> dict[str, Tensor]:
    """What modules gave while `run` was running."""
    found: dict[str, Tensor] = {}
    hooks = [
        network.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, name=name: found.__setitem__(name, output)
        )
        for name in names
    ]
    run()
    for hook in hooks:
        hook.remove()
    return found
