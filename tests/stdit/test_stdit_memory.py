"""The estimate of device memory against what the network allocates."""

from __future__ import annotations

import pytest
import torch
from peak_memory import peak_bytes

from sora_plugins.stdit import memory, network, sora_models, stdit1, stdit2
from sora_plugins.stdit.memory import network_memory, parameters
from sora_plugins.stdit.stdit3 import build

SPECS = {spec.name: spec for spec in sora_models()}
BUILDS = {"opensora-v1.0": stdit1.build, "opensora-v1.1": stdit2.build, "opensora-v1.2": build}
SMALL = {
    "hidden_size": 144,
    "num_heads": 2,
    "depth": 2,
    "caption_channels": 64,
    "model_max_length": 30,
}


@pytest.mark.parametrize("name", list(BUILDS))
@pytest.mark.parametrize(("dtype", "dtype_bytes"), [(torch.float32, 4), (torch.bfloat16, 2)])
@pytest.mark.parametrize(
    ("rows", "size", "tokens_at_once"),
    [(2, (6, 32, 32), 10**6), (2, (6, 32, 32), 512), (1, (12, 16, 16), 256), (2, (1, 64, 64), 1024)],
    ids=["whole", "pieces", "short frames", "image"],
)
def test_working_memory(name, dtype, dtype_bytes, rows, size, tokens_at_once):
    """Never less than is used, at most a quarter more (kernels of a GPU have buffers of their own)."""
    torch.manual_seed(0)
    config = {**next(iter(SPECS[name].variants.values())), **SMALL}
    model = BUILDS[name](config).to(dtype).eval()
    for block in model.blocks():
        block.tokens_at_once = tokens_at_once
    x, y, one = torch.randn(rows, 4, *size), torch.randn(rows, 1, 30, 64), torch.ones(1)

    def call() -> None:
        told = {"fps": one, "height": one * 256, "width": one * 256, "num_frames": one, "ar": one}
        model(x, torch.ones(rows), model.encode_text(y), **told)

    with torch.inference_mode():
        call()  # tables are kept
        used = peak_bytes(call)
    estimate = network_memory(
        config,
        latent_shape=(4, *size),
        rows=rows,
        text_tokens=30,
        dtype_bytes=dtype_bytes,
        tokens_at_once=tokens_at_once,
    )
    assert used <= estimate.working <= 1.25 * used


@pytest.mark.parametrize("variant", ["XL/2", "3B/2"])
@pytest.mark.parametrize("changes", [{}, {"qk_norm": False, "mlp_ratio": 3.0, "pred_sigma": False}])
def test_parameters_are_those_of_the_network(variant, changes):
    config = {**SPECS["opensora-v1.2"].variants[variant], **changes}
    with torch.device("meta"):
        model = build(config)
    count, block, rest = parameters(config)
    assert count == 2 * config["depth"]
    for one in model.blocks():
        assert sum(parameter.numel() for parameter in one.parameters()) == block
    assert sum(parameter.numel() for parameter in model.parameters()) == 2 * config["depth"] * block + rest
    estimate = network_memory(config, latent_shape=(4, 1, 8, 8), rows=1, text_tokens=1, dtype_bytes=2)
    buffer = model.y_embedder.y_embedding.numel() * 4
    assert estimate.weights == (2 * config["depth"] * block + rest) * 2 + buffer


def test_a_large_clip_fits_a_small_card():
    """720p, 4 s, guidance, bf16 in 8 GB, and in much less when blocks are fetched one by one (performance.md 2)."""
    config = sora_models()[0].variants["XL/2"]
    clip = {"latent_shape": (4, 30, 90, 160), "rows": 2, "text_tokens": 300, "dtype_bytes": 2}
    needed = network_memory(config, **clip)
    assert needed.weights + needed.working < 5e9
    assert needed.block + needed.working < 2.5e9
    assert needed.block < needed.weights / 10


def test_the_pieces_are_those_of_the_network():
    assert memory.TOKENS_AT_ONCE == network.TOKENS_AT_ONCE
    assert network.CPU_TOKENS_AT_ONCE <= network.TOKENS_AT_ONCE
