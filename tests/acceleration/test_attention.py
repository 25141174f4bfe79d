"""Attention backends: the same numbers from each, and clear refusals."""

from __future__ import annotations

import sys
import types
from importlib.machinery import ModuleSpec

import pytest
import torch
from torch import Tensor, nn

from sora_cli.acceleration import attention
from sora_cli.acceleration.attention import BACKENDS, attend_packed, choose_attention, set_attention
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
    out = choose_attention(name, CPU, torch.float32).function(*qkv, mask)
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


# --- samples that see different numbers of keys -------------------------------------------------------------------

LENGTHS = {"equal": [4, 4, 4], "different": [3, 1, 5], "one sample": [6]}


def packed_inputs(lengths: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """q (B, 5, 2, 8); k, v (sum of lengths, 2, 8)."""
    generator = torch.Generator().manual_seed(1)
    q = torch.randn(len(lengths), 5, 2, 8, generator=generator)
    k, v = (torch.randn(sum(lengths), 2, 8, generator=generator) for _ in range(2))
    return q, k, v


def slow_packed(q: Tensor, k: Tensor, v: Tensor, lengths: list[int]) -> Tensor:
    """Sample by sample by the definition."""
    rows = []
    for row, keys, values in zip(q, k.split(lengths), v.split(lengths), strict=True):
        one = slow_attention(*(part.transpose(0, 1)[None] for part in (row, keys, values)), None)
        rows.append(one[0].transpose(0, 1))
    return torch.stack(rows)


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("is_masked", [False, True], ids=["packed", "masked"])
@pytest.mark.parametrize("name", ["sdpa", "math"])
def test_each_sample_sees_its_own_keys(name, is_masked, lengths):
    given = packed_inputs(lengths)
    out = attend_packed(BACKENDS[name], *given, lengths, is_masked=is_masked)
    torch.testing.assert_close(out.double(), slow_packed(*given, lengths), atol=2e-6, rtol=0)


def test_gradients_of_packed_and_masked_agree():
    gradients = []
    for is_masked in (False, True):
        leaves = [tensor.requires_grad_() for tensor in packed_inputs([3, 1, 5])]
        attend_packed(BACKENDS["sdpa"], *leaves, [3, 1, 5], is_masked=is_masked).square().sum().backward()
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


class BlockDiagonalMask:
    """As in xformers: query group i sees key group i."""

    def __init__(self, queries: list[int], keys: list[int]) -> None:
        self.queries, self.keys = queries, keys

    @classmethod
    def from_seqlens(cls, q_seqlen: list[int], kv_seqlen: list[int]) -> BlockDiagonalMask:
        return cls(q_seqlen, kv_seqlen)


@pytest.fixture
def packages(monkeypatch) -> list[tuple[int, ...]]:
    """Stand-ins for flash-attn and xformers with the packages' signatures; shapes of q that they were given.

    Layouts are (batch, sequence, heads, d), and (total, heads, d) in calls of variable length.
    """
    shapes: list[tuple[int, ...]] = []

    def flash_attn_func(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        shapes.append(tuple(q.shape))
        out = slow_attention(*(tensor.transpose(1, 2) for tensor in (q, k, v)), None)
        return out.transpose(1, 2).to(q.dtype)

    def groups(q: Tensor, k: Tensor, v: Tensor, queries: list[int], keys: list[int]) -> Tensor:
        """q, k, v (total, heads, d), group by group."""
        parts = zip(q.split(queries), k.split(keys), v.split(keys), strict=True)
        outputs = [slow_attention(*(part.transpose(0, 1)[None] for part in group), None)[0] for group in parts]
        return torch.cat([out.transpose(0, 1) for out in outputs]).to(q.dtype)

    def flash_attn_varlen_func(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cu_seqlens_q: Tensor,
        cu_seqlens_k: Tensor,
        max_seqlen_q: int,
        max_seqlen_k: int,
    ) -> Tensor:
        shapes.append(tuple(q.shape))
        for starts, longest in ((cu_seqlens_q, max_seqlen_q), (cu_seqlens_k, max_seqlen_k)):
            assert (starts.dtype, int(starts[0]), int(starts.diff().max())) == (torch.int32, 0, longest)
        return groups(q, k, v, cu_seqlens_q.diff().tolist(), cu_seqlens_k.diff().tolist())

    def memory_efficient_attention(
        query: Tensor, key: Tensor, value: Tensor, attn_bias: BlockDiagonalMask | None = None
    ) -> Tensor:
        if attn_bias is None:
            return flash_attn_func(query, key, value)
        assert len(query) == len(key) == len(value) == 1, "block masks take one packed row"
        shapes.append(tuple(query.shape))
        return groups(query[0], key[0], value[0], attn_bias.queries, attn_bias.keys)[None]

    install(monkeypatch, "flash_attn", flash_attn_func=flash_attn_func, flash_attn_varlen_func=flash_attn_varlen_func)
    install(monkeypatch, "xformers")
    install(monkeypatch, "xformers.ops", memory_efficient_attention=memory_efficient_attention)
    install(monkeypatch, "xformers.ops.fmha")
    install(monkeypatch, "xformers.ops.fmha.attn_bias", BlockDiagonalMask=BlockDiagonalMask)
    return shapes


@pytest.mark.parametrize("name", ["flash", "xformers"])
def test_package_backends_use_their_layout(name, qkv, packages):
    backend = choose_attention(name, CUDA, torch.bfloat16).function
    torch.testing.assert_close(backend(*qkv, None), attention.sdpa(*qkv), atol=2e-6, rtol=0)
    assert packages == [(2, 5, 3, 12)]
    mask = MASKS["per sample"]
    torch.testing.assert_close(backend(*qkv, mask), attention.sdpa(*qkv, mask), atol=0, rtol=0)
    assert len(packages) == 1, "masked calls do not reach the kernel"


@pytest.mark.parametrize(("name", "shape"), [("flash", (15, 2, 8)), ("xformers", (1, 15, 2, 8))])
def test_packed_kernels_of_the_packages(name, shape, packages):
    lengths = [3, 1, 5]
    given = packed_inputs(lengths)
    out = attend_packed(BACKENDS[name], *given, lengths)
    torch.testing.assert_close(out.double(), slow_packed(*given, lengths), atol=2e-6, rtol=0)
    assert packages == [shape], "one call of the kernel for all samples"


@pytest.mark.parametrize("name", ["flash", "xformers"])
@pytest.mark.parametrize(("device", "dtype"), [(CPU, torch.bfloat16), (CUDA, torch.float32)])
def test_package_backends_refuse_what_they_cannot_do(name, device, dtype, packages):
    with pytest.raises(UsageError, match="runs on CUDA in bf16 or fp16") as caught:
        choose_attention(name, device, dtype)
    assert "sdpa" in caught.value.hint


def test_heads_too_wide_for_the_package(packages):
    with pytest.raises(UsageError, match="at most 256 channels, this model has 512"):
        choose_attention("flash", CUDA, torch.bfloat16, 512)
    assert choose_attention("flash", CUDA, torch.bfloat16, 72).name == "flash"


@pytest.mark.parametrize(("name", "package"), [("flash", "flash_attn"), ("xformers", "xformers")])
def test_missing_package_names_the_extra(name, package, monkeypatch):
    monkeypatch.setattr(attention, "find_spec", lambda wanted: None if wanted == package else object())
    with pytest.raises(MissingError, match=package) as caught:
        choose_attention(name, CUDA, torch.bfloat16)
    assert caught.value.exit_code == EXIT_MISSING
    assert f"sora-cli[{name}]" in caught.value.hint


# --- choosing ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "dtype", "head_dim", "why"),
    [
        (CPU, torch.float32, 72, "the fused kernel of torch for cpu"),
        (torch.device("mps"), torch.float16, None, "the fused kernel of torch for mps"),
        (CUDA, torch.bfloat16, 72, "the flash kernel of torch for heads of width 72"),
        (CUDA, torch.float16, None, "the flash kernel of torch"),
        (CUDA, torch.float32, 72, "flash kernels need bf16 or fp16"),
        (CUDA, torch.bfloat16, 20, "flash kernels do not take heads of width 20"),
        (CUDA, torch.bfloat16, 512, "flash kernels do not take heads of width 512"),
    ],
)
def test_auto_is_torch_and_says_why(device, dtype, head_dim, why, packages):
    """Also where the packages are installed: torch carries the same kernels."""
    choice = choose_attention("auto", device, dtype, head_dim)
    assert (choice.name, choice.function) == ("sdpa", attention.sdpa)
    assert why in choice.why


@pytest.mark.parametrize("name", BACKENDS)
def test_a_named_backend_is_taken(name, packages):
    choice = choose_attention(name, CUDA, torch.bfloat16, 72)
    assert choice == (name, BACKENDS[name], "asked for")


def test_unknown_backend_suggests():
    with pytest.raises(UsageError, match="unknown attention backend 'sdap'") as caught:
        choose_attention("sdap", CPU, torch.float32)
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
