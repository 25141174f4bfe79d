"""Linear layers with 8-bit weights."""

from __future__ import annotations

import torch
from torch import nn

from sora_cli.acceleration.quantize import Int8Linear, quantize_linears, quantize_rows, quantize_tensors


def quantized(network: nn.Module) -> nn.Module:
    names = {f"{name}.weight" for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    tensors = quantize_tensors(network.state_dict(), names)
    network = quantize_linears(network)
    network.load_state_dict(tensors, strict=True)
    return network


def test_error_of_a_wide_layer():
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(1024, 512), nn.SiLU(), nn.Linear(512, 64))
    x = torch.randn(8, 1024)
    exact = layer(x)
    rough = quantized(layer)(x)
    assert isinstance(layer[0], Int8Linear)
    assert 0 < (rough - exact).norm() / exact.norm() < 0.02
    assert layer[0].weight.dtype == torch.int8


def test_rows_of_zeros_and_the_largest_weight():
    weight = torch.tensor([[0.0, 0.0], [0.5, -2.0]])
    levels, scale = quantize_rows(weight)
    assert levels.tolist() == [[0, 0], [32, -127]]
    torch.testing.assert_close(levels[1] * scale[1], weight[1], atol=0.008, rtol=0)


def test_bias_and_number_format():
    torch.manual_seed(0)
    network = quantized(nn.Sequential(nn.Linear(16, 8, bias=False), nn.Linear(8, 4)))
    assert network(torch.randn(2, 16)).dtype == torch.float32
    assert network.bfloat16()(torch.randn(2, 16).bfloat16()).dtype == torch.bfloat16
