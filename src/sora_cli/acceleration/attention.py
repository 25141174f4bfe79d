"""Attention backends: one table of named functions, all computing softmax(q k^T / sqrt(d)) v.

Every function takes q (batch, heads, queries, d), k and v (batch, heads, keys, d), and an optional boolean mask
that broadcasts to (batch, heads, queries, keys) with True for keys that may be seen; it returns (batch, heads,
queries, d). Networks call `self.attend(...)`, and `attend_packed(self.attend, ...)` for samples that see different
numbers of keys; `choose_attention` picks the function and `set_attention` gives it to a network from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sora_cli.errors import MissingError, UsageError, unknown_name

AttentionFunction = Callable[[Tensor, Tensor, Tensor, "Tensor | None"], Tensor]


# -- the functions -------------------------------------------------------------------------------------------------


def sdpa(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """The fused attention that comes with torch; the default."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def math(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Written out, softmax in float32. On CPU its backward pass over short sequences is much faster than `sdpa`'s."""
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    scores = scores.float()
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return scores.softmax(dim=-1).to(v.dtype) @ v


def flash(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """The flash-attn package (CUDA, half precision). Masked calls go through `sdpa`: the kernel takes no mask."""
    if mask is not None:
        return sdpa(q, k, v, mask)
    from flash_attn import flash_attn_func

    out = flash_attn_func(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return out.transpose(1, 2)


def xformers(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """The xformers package (CUDA). Masked calls go through `sdpa`."""
    if mask is not None:
        return sdpa(q, k, v, mask)
    from xformers.ops import memory_efficient_attention

    out = memory_efficient_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return out.transpose(1, 2)


BACKENDS: dict[str, AttentionFunction] = {"sdpa": sdpa, "math": math, "flash": flash, "xformers": xformers}


# -- samples that see different numbers of keys --------------------------------------------------------------------


def attend_packed(
    function: AttentionFunction, q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int], *, is_masked: bool = False
) -> Tensor:
    """Attention of each sample to its own keys.

    q: (B, queries, heads, d). k, v: (sum of lengths, heads, d), one sample after the other; lengths: keys per sample,
    at least 1. is_masked: pad to the longest and mask, one call for all; otherwise the packed kernel of the backend,
    or a call per sample where it has none. Returns (B, queries, heads, d).
    """
    if min(lengths) == max(lengths):  # a rectangle as it is
        keys, values = (part.unflatten(0, (len(lengths), -1)).transpose(1, 2) for part in (k, v))
        return function(q.transpose(1, 2), keys, values, None).transpose(1, 2)
    if is_masked:
        pads = [nn.utils.rnn.pad_sequence(list(part.split(list(lengths))), batch_first=True) for part in (k, v)]
        keys, values = (part.transpose(1, 2) for part in pads)
        seen = torch.arange(max(lengths), device=q.device) < torch.tensor(lengths, device=q.device)[:, None]
        return function(q.transpose(1, 2), keys, values, seen[:, None, None]).transpose(1, 2)
    if function in _PACKED:
        return _PACKED[function](q, k, v, lengths)
    outputs = []
    for row, keys, values in zip(q.split(1), k.split(list(lengths)), v.split(list(lengths)), strict=True):
        query, key, value = (part.transpose(1, 2) for part in (row, keys[None], values[None]))
        outputs.append(function(query, key, value, None).transpose(1, 2))
    return torch.cat(outputs)


def _flash_packed(q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int]) -> Tensor:
    from flash_attn import flash_attn_varlen_func

    batch, queries = q.shape[:2]
    starts = [torch.tensor([0, *accumulate(counts)], dtype=torch.int32) for counts in ([queries] * batch, lengths)]
    starts = [start.to(q.device, non_blocking=True) for start in starts]
    out = flash_attn_varlen_func(q.flatten(0, 1), k, v, *starts, queries, max(lengths))
    return out.unflatten(0, (batch, queries))


def _xformers_packed(q: Tensor, k: Tensor, v: Tensor, lengths: Sequence[int]) -> Tensor:
    from xformers.ops import memory_efficient_attention
    from xformers.ops.fmha.attn_bias import BlockDiagonalMask

    batch, queries = q.shape[:2]
    bias = BlockDiagonalMask.from_seqlens([queries] * batch, list(lengths))
    out = memory_efficient_attention(q.flatten(0, 1)[None], k[None], v[None], attn_bias=bias)
    return out[0].unflatten(0, (batch, queries))


_PACKED: dict[AttentionFunction, Callable[[Tensor, Tensor, Tensor, Sequence[int]], Tensor]] = {
    flash: _flash_packed,
    xformers: _xformers_packed,
}


# -- choosing ------------------------------------------------------------------------------------------------------

#: backend -> (import name, extra that installs it); all of these run on CUDA in half precision only
_NEEDS = {"flash": ("flash_attn", "flash"), "xformers": ("xformers", "xformers")}
#: The widest head that the kernels of flash-attn are compiled for; torch carries the same kernels.
FLASH_HEAD_WIDTH = 256
HALF = (torch.float16, torch.bfloat16)


class AttentionChoice(NamedTuple):
    """What `choose_attention` picked. name: of the backend; why: in words, for people."""

    name: str
    function: AttentionFunction
    why: str


def choose_attention(
    name: str, device: torch.device, dtype: torch.dtype, head_dim: int | None = None
) -> AttentionChoice:
    """The backend called `name` for this device, number format and head width, and why.

    "auto" is `sdpa`: it has a fused kernel on every device, torch carries the kernels of flash-attn for CUDA, and the
    packages gain nothing that is worth another result. head_dim: None when it is not known yet.
    Raises UsageError for an unknown name or a device, dtype or head width that the backend cannot run on, MissingError
    (exit 3) when its package is not installed.
    """
    if name == "auto":
        return AttentionChoice("sdpa", sdpa, _why_sdpa(device, dtype, head_dim))
    if name not in BACKENDS:
        raise unknown_name("attention backend", name, ["auto", *BACKENDS])
    if name in _NEEDS:
        _check_package(name, device, dtype, head_dim)
    return AttentionChoice(name, BACKENDS[name], "asked for")


def _why_sdpa(device: torch.device, dtype: torch.dtype, head_dim: int | None) -> str:
    if device.type != "cuda":
        return f"the fused kernel of torch for {device.type}"
    if dtype not in HALF:
        return "the memory-efficient kernel of torch; flash kernels need bf16 or fp16"
    if head_dim is not None and (head_dim > FLASH_HEAD_WIDTH or head_dim % 8):
        return f"flash kernels do not take heads of width {head_dim}, the other kernels of torch do"
    return "the flash kernel of torch" + (f" for heads of width {head_dim}" if head_dim else "")


def _check_package(name: str, device: torch.device, dtype: torch.dtype, head_dim: int | None) -> None:
    package, extra = _NEEDS[name]
    if find_spec(package) is None:
        raise MissingError(
            f"attention backend {name!r} needs {package}, which is not installed",
            hint=f"pip install 'sora-cli[{extra}]', or choose --attention sdpa",
        )
    if device.type != "cuda" or dtype not in HALF:
        raise UsageError(
            f"attention backend {name!r} runs on CUDA in bf16 or fp16, not on {device.type} in {dtype}",
            hint="choose --attention sdpa",
        )
    if name == "flash" and head_dim is not None and head_dim > FLASH_HEAD_WIDTH:
        raise UsageError(
            f"attention backend 'flash' takes heads of at most {FLASH_HEAD_WIDTH} channels, this model has {head_dim}",
            hint="choose --attention sdpa",
        )


def set_attention(model: nn.Module, backend: AttentionFunction) -> None:
    """Give every attention layer of `model` (every module with an `attend` attribute) this backend."""
    for module in model.modules():
        if hasattr(module, "attend"):
            module.attend = backend  # type: ignore[assignment]
