"""Master weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sora_cli.training.optimizer import MasterOptimizer


def network(dtype):
    torch.manual_seed(0)
    return nn.Linear(8, 4).to(dtype)


def backward(layer, seed):
    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(seed)).to(layer.weight.dtype)
    layer(x).square().mean().backward()


def test_masters_start_from_the_float32_weights():
    source = network(torch.float32).state_dict()
    layer = network(torch.bfloat16)
    optimizer = MasterOptimizer(dict(layer.named_parameters()), sources=source)
    assert torch.equal(optimizer.masters["weight"], source["weight"])
    assert not torch.equal(optimizer.masters["weight"], layer.weight.float())


def test_small_updates_are_not_lost_in_bf16():
    layer = network(torch.bfloat16)
    optimizer = MasterOptimizer(dict(layer.named_parameters()))
    before = optimizer.masters["weight"].clone()
    for step in range(5):
        backward(layer, step)
        optimizer.step(1e-6)
    assert not torch.equal(optimizer.masters["weight"], before)
    assert torch.equal(layer.weight, optimizer.masters["weight"].bfloat16())


def test_frozen_parameters_have_no_state():
    layer = network(torch.float32)
    layer.bias.requires_grad_(False)
    optimizer = MasterOptimizer(dict(layer.named_parameters()))
    assert list(optimizer.masters) == ["weight"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gradient_that_is_not_finite_changes_nothing(dtype):
    layer = network(dtype)
    optimizer = MasterOptimizer(dict(layer.named_parameters()))
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    backward(layer, 0)
    layer.weight.grad[0, 0] = float("nan")
    assert not torch.isfinite(torch.tensor(optimizer.step(0.1, 1.0)))
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())
    assert layer.weight.grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_going_on_from_a_saved_state_is_exact(dtype):
    import copy

    one = network(dtype)
    first = MasterOptimizer(dict(one.named_parameters()), weight_decay=0.1)
    for step in range(3):
        backward(one, step)
        first.step(0.01, 1.0)
    saved = copy.deepcopy((first.masters, first.moments()))
    other = nn.Linear(8, 4).to(dtype)
    second = MasterOptimizer(dict(other.named_parameters()), weight_decay=0.1)
    second.load(*saved)
    for layer, optimizer in ((one, first), (other, second)):
        backward(layer, 3)
        optimizer.step(0.01, 1.0)
    assert torch.equal(one.weight, other.weight)
    with pytest.raises(ValueError, match="of other parameters: bias"):
        second.load({"weight": one.weight}, {})


def test_a_scaled_loss_gives_the_same_update():
    layers = [network(torch.float32) for _ in range(2)]
    norms = []
    for layer, scale in zip(layers, (1.0, 1024.0), strict=True):
        optimizer = MasterOptimizer(dict(layer.named_parameters()))
        x = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
        (layer(x).square().mean() * scale).backward()
        norms.append(optimizer.step(0.01, 0.1, scale=scale))
    assert norms[0] == pytest.approx(norms[1])
    torch.testing.assert_close(layers[0].weight, layers[1].weight)
