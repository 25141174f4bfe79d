"""The engine on one device: gradient checkpointing, loss scale, accumulation."""

from __future__ import annotations

import pytest
import torch
from opensora_tiny import NETWORK

from sora_cli.errors import UsageError
from sora_cli.training.engine import Engine, EngineOptions, LossScale, compile_blocks, use_gradient_checkpointing
from sora_plugins.stdit.stdit3 import build

CONFIG = {**NETWORK, "depth": 2, "class_dropout_prob": 0.0}


def network():
    torch.manual_seed(0)
    made = build(CONFIG)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return made.train()


def call(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 4, 3, 8, 8, generator=generator)
    y = torch.randn(2, 1, 300, 32, generator=generator)
    sizes = {name: torch.full((2,), 64.0) for name in ("fps", "height", "width")}
    return model(x, torch.tensor([100.0, 700.0]), y, torch.ones(2, 300), **sizes).square().mean()


@pytest.mark.parametrize(("share", "twice"), [(1.0, 4), (0.5, 2), (0.25, 1)])
def test_gradients_do_not_depend_on_checkpointing(share, twice):
    plain, checked = network(), network()
    use_gradient_checkpointing(checked, share)
    calls: list[int] = []
    for block in checked.blocks():
        block.mlp.register_forward_hook(lambda *_: calls.append(1))
    for model in (plain, checked):
        call(model).backward()
    assert len(calls) == 4 + twice
    for one, other in zip(plain.parameters(), checked.parameters(), strict=True):
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad)


def test_accumulated_micro_batches_are_their_mean():
    engines = [Engine(network(), EngineOptions()) for _ in range(2)]
    for seed in (1, 2):
        engines[0].backward(call(engines[0].model, seed) / 2)
    together = (call(engines[1].model, 1) + call(engines[1].model, 2)) / 2
    engines[1].backward(together)
    norms = [engine.update(1e-3, 1.0).norm for engine in engines]
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    for one, other in zip(engines[0].network.parameters(), engines[1].network.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_an_overflow_changes_nothing_but_the_scale():
    engine = Engine(network(), EngineOptions(dtype=torch.float16))
    assert engine.loss_scale is not None
    before = {name: tensor.clone() for part in engine.files().values() for name, tensor in part.items()}
    for _ in range(2):
        for parameter in engine.optimizer.parameters.values():
            parameter.grad = torch.full_like(parameter, float("inf"))
        assert not engine.update(1e-3, 1.0).is_applied
    assert engine.loss_scale.value == LossScale.FIRST / 2, "on the second in a row"
    after = {name: tensor for part in engine.files().values() for name, tensor in part.items()}
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    again = Engine(network(), EngineOptions(dtype=torch.float16))
    again.load_record(engine.record())
    assert again.loss_scale is not None
    assert again.loss_scale.state() == engine.loss_scale.state()


def test_the_scale_grows_after_many_good_updates():
    scale = LossScale()
    for _ in range(LossScale.PATIENCE):
        scale.update(True)
    assert scale.value == 2 * LossScale.FIRST
    for _ in range(200):
        scale.update(False)
    assert scale.value == 1.0


def test_the_average_follows_the_masters():
    engine = Engine(network(), EngineOptions(dtype=torch.bfloat16, ema_decay=0.5))
    name = "spatial_blocks.0.mlp.fc1.weight"
    start = engine.ema.average[name].clone()
    engine.backward(call(engine.model))
    engine.update(1e-3, 1.0)
    torch.testing.assert_close(engine.ema.average[name], (start + engine.optimizer.masters[name].detach()) / 2)
    assert engine.network.get_parameter(name).dtype == torch.bfloat16
    assert engine.ema.average[name].dtype == torch.float32


def test_a_network_without_blocks_is_trained_as_it_is() -> None:
    network = torch.nn.Linear(2, 2)
    use_gradient_checkpointing(network)
    assert network(torch.ones(1, 2)).requires_grad
    with pytest.raises(UsageError, match=r"compile works on the blocks of a network, and Linear has no blocks\(\)"):
        compile_blocks(network)
