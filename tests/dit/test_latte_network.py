"""What Latte does with time beside the golden values."""

from __future__ import annotations

import torch
from torch import Tensor

from sora_plugins.dit.latte import Latte, build


def make(depth: int) -> Latte:
    torch.manual_seed(0)
    network = build({"hidden_size": 24, "depth": depth, "num_heads": 4, "condition": "label_5"})
    with torch.no_grad():  # the initial weights make every block the identity
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return network.eval()


def run(network: Latte, x: Tensor) -> Tensor:
    with torch.no_grad():
        return network(x, torch.full((len(x),), 300.0), torch.arange(len(x)))


def clip() -> Tensor:
    return torch.randn(1, 4, 3, 4, 6, generator=torch.Generator().manual_seed(1))


def test_one_block_makes_every_frame_by_itself():
    x, network = clip(), make(depth=1)
    out = run(network, x)
    torch.testing.assert_close(out[:, :, 1:2], run(network, x[:, :, 1:2]))
    torch.testing.assert_close(out.flip(2), run(network, x.flip(2)))


def test_two_blocks_see_the_order_of_frames():
    x, network = clip(), make(depth=2)
    out = run(network, x)
    assert not torch.allclose(out[:, :, 1:2], run(network, x[:, :, 1:2]), atol=1e-3)
    assert not torch.allclose(out.flip(2), run(network, x.flip(2)), atol=1e-3)


def test_samples_of_a_batch_do_not_see_each_other():
    x, network = torch.cat([clip(), clip() + 1]), make(depth=4)
    torch.testing.assert_close(run(network, x)[:1], run(network, x[:1]))
