"""Master weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sora_cli.config.train_schema import OptimizerSection
from sora_cli.errors import MissingError, UsageError
from sora_cli.training.optimizer import MasterOptimizer, matrix_names
from sora_cli.training.start import optimizer_options


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


# -- Muon ----------------------------------------------------------------------------------------------------------

needs_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="needs torch.optim.Muon (torch 2.9)")


class Stack(nn.Module):
    """Two blocks between a first and a last layer."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 4)
        self.middle = nn.ModuleList(nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 8)) for _ in "ab")
        self.table = nn.Parameter(torch.zeros(2, 8))
        self.to(dtype)

    @property
    def weight(self) -> torch.Tensor:
        return self.first.weight

    def blocks(self) -> list[nn.Module]:
        return list(self.middle)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x) + self.table[0]
        for block in self.middle:
            x = x + block(x)
        return self.last(x)


def muon_of(stack: Stack, **options) -> MasterOptimizer:
    return MasterOptimizer(dict(stack.named_parameters()), matrices=matrix_names(stack), **options)


def test_matrices_are_the_linear_layers_of_blocks():
    stack = Stack()
    stack.middle[1][2].weight.requires_grad_(False)
    assert matrix_names(stack) == {"middle.0.0.weight", "middle.0.2.weight", "middle.1.0.weight"}


@needs_muon
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_muon_turns_matrices_and_adamw_the_rest(dtype):
    stack = Stack(dtype)
    optimizer = muon_of(stack, matrix_rate=2.0)
    before = {name: master.detach().clone() for name, master in optimizer.masters.items()}
    backward(stack, 0)
    optimizer.step(0.01)
    kinds = {key.partition(".")[2]: key.partition(".")[0] for key in optimizer.moments() if "step" not in key}
    assert {name for name, kind in kinds.items() if kind == "momentum_buffer"} == matrix_names(stack)
    assert kinds.keys() == before.keys()
    # All singular values of Muon's first step are about 1, times 0.2 sqrt(longer side) and the rate.
    change = (optimizer.masters["middle.0.0.weight"] - before["middle.0.0.weight"]).detach()
    singular = torch.linalg.svdvals(change) / (0.2 * 16**0.5 * 0.02)
    assert 0.5 < float(singular.min()) <= float(singular.max()) < 1.5
    # AdamW's first step is the rate wherever there is a gradient.
    change = (optimizer.masters["last.weight"] - before["last.weight"]).detach()
    assert float(change.abs().max()) == pytest.approx(0.01, rel=1e-2)
    assert torch.equal(stack.last.weight, optimizer.masters["last.weight"].to(dtype))


@needs_muon
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_going_on_with_muon_is_exact(dtype):
    import copy

    one, other = Stack(dtype), Stack(dtype)
    first = muon_of(one, weight_decay=0.1)
    for step in range(3):
        backward(one, step)
        first.step(0.01, 1.0)
    saved = copy.deepcopy((first.masters, first.moments()))
    second = muon_of(other, weight_decay=0.1)
    second.load(*saved)
    for stack, optimizer in ((one, first), (other, second)):
        backward(stack, 3)
        optimizer.step(0.01, 1.0)
    for name, master in first.masters.items():
        assert torch.equal(master, second.masters[name]), name
    adam = MasterOptimizer(dict(Stack(dtype).named_parameters()))
    with pytest.raises(ValueError, match=r"optimizer state of .* is another optimizer's"):
        adam.load(*saved)
    with pytest.raises(ValueError, match=r"optimizer state of .* is another optimizer's"):
        muon_of(Stack(dtype)).load(first.masters, {"exp_avg.middle.0.0.weight": torch.zeros(16, 8)})


@needs_muon
def test_only_matrices_to_train():
    stack = Stack()
    for name, parameter in stack.named_parameters():
        parameter.requires_grad_(name in matrix_names(Stack()))
    optimizer = muon_of(stack)
    backward(stack, 0)
    assert optimizer.step(0.01) > 0
    assert {key.partition(".")[0] for key in optimizer.moments()} == {"momentum_buffer"}


def test_an_older_torch_has_no_muon(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    with pytest.raises(MissingError, match=r"muon needs torch 2\.9"):
        muon_of(Stack())


def test_networks_without_matrices_in_blocks():
    settings = OptimizerSection(name="muon", learning_rate=1e-3, matrix_learning_rate=2e-3)
    options = optimizer_options(settings, Stack())
    assert options["matrix_rate"] == 2.0
    assert options["matrices"] == matrix_names(Stack())
    frozen = Stack()
    frozen.middle.requires_grad_(False)
    with pytest.raises(UsageError, match="no linear layer in the blocks"):
        optimizer_options(settings, frozen)
    assert "matrices" not in optimizer_options(OptimizerSection(), Stack())
