"""Attention backends: the same numbers from each, and clear refusals."""

from __future__ import annotations

import sys
import types
from importlib.machinery import ModuleSpec

import pytest
import torch
from torch import Tensor, nn

from sora_cli.acceleration import attention
from sora_cli.acceleration.attention import BACKENDS, attention_backend, set_attention
from sora_cli.errors import EXIT_MISSING, EXIT_USAGE, MissingError, UsageError

CPU = torch.device("cpu")
CUDA = torch.device("cuda")


def slow_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """The definition, query by query, in float64."""
    q, k, v = q.double(), k.double(), v.double()
    out = torch.zeros(*q.shape[:3], v.shape[-1], dtype=torch.float64)
    if mask is not None:
        mask = mask.expand(len(q), q.shape[1], q.shape[2], k.shape[2])
    for b in range(len(q)):
        for h in range(q.shape[1]):
            for i in range(q.shape[2]):
                seen = torch.arange(k.shape[2]) if mask is None else mask[b, h, i].nonzero()[:, 0]
                weights = ((k[b, h, seen] @ q[b, h, i]) / q.shape[-1] ** 0.5).exp()
                out[b, h, i] = (weights / weights.sum()) @ v[b, h, seen]
    return out


@pytest.fixture
def qkv() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(2, 3, length, 12, generator=generator) for length in (5, 7, 7))


MASKS = {
    "none": None,
    "per sample": (torch.arange(7) < torch.tensor([3, 7])[:, None])[:, None, None],
    "per query": torch.ones(5, 7, dtype=torch.bool).tril(2)[None, None],
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("name", ["sdpa", "math", "auto"])
def test_backends_follow_the_definition(name, mask, qkv):
    out = attention_backend(name, CPU, torch.float32)(*qkv, mask)
    torch.testing.assert_close(out.double(), slow_attention(*qkv, mask), atol=2e-6, rtol=0)


@pytest.mark.parametrize("name", ["sdpa", "math"])
def test_backends_in_bfloat16(name, qkv):
    """Within bfloat16 rounding (2^-8 relative) of the definition on the same rounded inputs."""
    half = [tensor.bfloat16() for tensor in qkv]
    out = BACKENDS[name](*half, MASKS["per sample"])
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.double(), slow_attention(*half, MASKS["per sample"]), atol=0.015, rtol=0)


def test_gradients_agree(qkv):
    gradients = []
    for name in ("sdpa", "math"):
        leaves = [tensor.clone().requires_grad_() for tensor in qkv]
        BACKENDS[name](*leaves, MASKS["per sample"]).square().sum().backward()
        gradients.append([leaf.grad for leaf in leaves])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=5e-6, rtol=1e-5)


# --- packages that are not installed here ------------------------------------------------------------------------


def install(monkeypatch: pytest.MonkeyPatch, name: str, **attributes: object) -> None:
    """Put a module in place of an optional package."""
    module = types.ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    vars(module).update(attributes)
    monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def packages(monkeypatch) -> list[tuple[int, ...]]:
    """Stand-ins for flash-attn and xformers in their layout (batch, sequence, heads, d); shapes they were given."""
    shapes: list[tuple[int, ...]] = []

    def kernel(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        shapes.append(tuple(q.shape))
        out = slow_attention(*(tensor.transpose(1, 2) for tensor in (q, k, v)), None)
        return out.transpose(1, 2).to(q.dtype)

    install(monkeypatch, "flash_attn", flash_attn_func=kernel)
    install(monkeypatch, "xformers")
    install(monkeypatch, "xformers.ops", memory_efficient_attention=kernel)
    return shapes


@pytest.mark.parametrize("name", ["flash", "xformers"])
def test_package_backends_use_their_layout(name, qkv, packages):
    backend = attention_backend(name, CUDA, torch.bfloat16)
    torch.testing.assert_close(backend(*qkv, None), attention.sdpa(*qkv), atol=2e-6, rtol=0)
    assert packages == [(2, 5, 3, 12)]
    mask = MASKS["per sample"]
    torch.testing.assert_close(backend(*qkv, mask), attention.sdpa(*qkv, mask), atol=0, rtol=0)
    assert len(packages) == 1, "masked calls do not reach the kernel"


@pytest.mark.parametrize("name", ["flash", "xformers"])
@pytest.mark.parametrize(("device", "dtype"), [(CPU, torch.bfloat16), (CUDA, torch.float32)])
def test_package_backends_refuse_what_they_cannot_do(name, device, dtype, packages):
    with pytest.raises(UsageError, match="runs on CUDA in bf16 or fp16") as caught:
        attention_backend(name, device, dtype)
    assert "sdpa" in caught.value.hint


@pytest.mark.parametrize(("name", "package"), [("flash", "flash_attn"), ("xformers", "xformers")])
def test_missing_package_names_the_extra(name, package, monkeypatch):
    monkeypatch.setattr(attention, "find_spec", lambda wanted: None if wanted == package else object())
    with pytest.raises(MissingError, match=package) as caught:
        attention_backend(name, CUDA, torch.bfloat16)
    assert caught.value.exit_code == EXIT_MISSING
    assert f"sora-cli[{name}]" in caught.value.hint


def test_unknown_backend_suggests():
    with pytest.raises(UsageError, match="unknown attention backend 'sdap'") as caught:
        attention_backend("sdap", CPU, torch.float32)
    assert caught.value.exit_code == EXIT_USAGE
    assert "did you mean 'sdpa'?" in caught.value.hint


def test_set_attention_reaches_every_layer():
    from sora_plugins.stdit.stdit3 import build

    calls: list[tuple[int, int]] = []

    def counting(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        calls.append((q.shape[2], k.shape[2]))
        return attention.math(q, k, v, mask)

    torch.manual_seed(0)
    model = build({"hidden_size": 24, "depth": 2, "num_heads": 2, "caption_channels": 8, "model_max_length": 5}).eval()
    nn.init.normal_(model.temporal_blocks[0].attn.proj.weight)
    one = torch.ones(1)
    arguments = {"x": torch.randn(1, 4, 3, 4, 8), "timestep": 500 * one, "y": torch.randn(1, 1, 5, 8)}
    arguments |= {"fps": 24 * one, "height": 32 * one, "width": 64 * one}
    with torch.no_grad():
        default = model(**arguments)
        set_attention(model, counting)
        replaced = model(**arguments)
    # per pair of blocks: 8 positions, 24 tokens to 5 words, 3 frames, 24 tokens to 5 words
    assert calls == [(8, 8), (24, 5), (3, 3), (24, 5)] * 2
    torch.testing.assert_close(replaced, default, atol=1e-5, rtol=1e-5)
