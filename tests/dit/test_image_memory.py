"""The estimate of device memory against what the networks allocate."""

from __future__ import annotations

import pytest
import torch
from peak_memory import peak_bytes

from sora_cli.plugin.manager import load_attribute
from sora_plugins.dit import sora_models

SPECS = {spec.name: spec for spec in sora_models()}
SMALL = {"hidden_size": 144, "num_heads": 2, "depth": 3}


def build(spec, config):
    return load_attribute(spec.target, what=spec.name)(config, None)


def estimate(spec, config, **sizes):
    return load_attribute(spec.memory, what=spec.name)(config, **sizes)


@pytest.mark.parametrize("name", ["dit-xl-2-256", "latte-ucf101", "pixart-alpha-512", "pixart-alpha-1024"])
@pytest.mark.parametrize(("dtype", "dtype_bytes"), [(torch.float32, 4), (torch.bfloat16, 2)])
@pytest.mark.parametrize("size", [(1, 64, 64), (6, 32, 32)], ids=["picture", "clip"])
def test_working_memory(name, dtype, dtype_bytes, size):
    """Never less than is used, at most a quarter more (kernels of a GPU have buffers of their own)."""
    torch.manual_seed(0)
    spec, rows = SPECS[name], 2
    config = {**next(iter(spec.variants.values())), **SMALL, "caption_channels": 64, "model_max_length": 30}
    model = build(spec, config).to(dtype).eval()
    is_pixart = name.startswith("pixart")
    x, one = torch.randn(rows, 4, *size), torch.ones(1)
    y = torch.randn(rows, 1, 30, 64) if is_pixart else torch.tensor([3, 5]).view(rows, 1, 1, 1)

    def call() -> None:
        model(x, torch.ones(rows), model.encode_text(y), height=one * 256, width=one * 256, ar=one)

    with torch.inference_mode():
        call()  # tables are kept
        used = peak_bytes(call)
    planned = estimate(spec, config, latent_shape=(4, *size), rows=rows, text_tokens=30, dtype_bytes=dtype_bytes)
    assert used <= planned.working <= 1.25 * used


@pytest.mark.parametrize("name", list(SPECS))
def test_parameters_are_those_of_the_network(name):
    spec = SPECS[name]
    for config in spec.variants.values():
        with torch.device("meta"):
            model = build(spec, config)
        planned = estimate(spec, config, latent_shape=(4, 1, 8, 8), rows=1, text_tokens=1, dtype_bytes=2)
        kept = sum(buffer.numel() for buffer in model.buffers()) * 4
        assert planned.weights == sum(parameter.numel() for parameter in model.parameters()) * 2 + kept
        blocks = [sum(parameter.numel() for parameter in block.parameters()) for block in model.blocks()]
        assert planned.weights - planned.block == (len(blocks) - 2) * blocks[0] * 2
