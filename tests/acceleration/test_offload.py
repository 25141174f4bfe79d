"""Blocks that are fetched one by one give the same result; here from main memory to main memory."""

from __future__ import annotations

import torch
from torch import nn

from sora_cli.acceleration.offload import offload_blocks


class Chain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8)) for _ in range(3))

    def blocks(self) -> list[nn.Module]:
        return list(self.layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for layer in self.layers:
            x = layer(x)
        return x


def test_the_same_result_and_the_weights_stay():
    torch.manual_seed(0)
    network, x = Chain(), torch.randn(2, 4)
    with torch.inference_mode():
        expected = network(x)
    kept = [parameter.data_ptr() for parameter in network.layers.parameters()]
    seen = []
    offloaded = offload_blocks(network, torch.device("cpu"))
    assert offloaded is not None
    network.layers[1].register_forward_hook(lambda module, *_: seen.append(module[0].weight.data_ptr()))
    with torch.inference_mode():
        for _ in range(2):
            assert torch.equal(network(x), expected)
    assert [parameter.data_ptr() for parameter in network.layers.parameters()] == kept
    offloaded.remove()
    with torch.inference_mode():
        assert torch.equal(network(x), expected)


def test_a_part_without_blocks_moves_as_a_whole():
    layer = nn.Linear(2, 2)
    assert offload_blocks(layer, torch.device("cpu")) is None


def test_a_released_network(tmp_path):
    from sora_plugins.stdit.stdit3 import build

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "depth": 2, "num_heads": 4, "caption_channels": 8, "model_max_length": 6}
    network = build(sizes).eval()
    given = {
        "x": torch.randn(2, 4, 3, 4, 4),
        "timestep": torch.tensor([500.0, 500.0]),
        "y": torch.randn(2, 1, 6, 8),
        "fps": torch.tensor([24.0]),
        "height": torch.tensor([32.0]),
        "width": torch.tensor([32.0]),
    }
    with torch.inference_mode():
        expected = network(**given)
        offload_blocks(network, torch.device("cpu"))
        assert torch.equal(network(**given), expected)
