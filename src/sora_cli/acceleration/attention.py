"""Attention backends: one table of named functions, all computing softmax(q k^T / sqrt(d)) v.

Every function takes q (batch, heads, queries, d), k and v (batch, heads, keys, d), and an optional boolean mask
that broadcasts to (batch, heads, queries, keys) with True for keys that may be seen; it returns (batch, heads,
queries, d). Networks call `self.attend(...)`; `set_attention` chooses the backend from outside.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sora_cli.errors import MissingError, UsageError, unknown_name

AttentionFunction = Callable[[Tensor, Tensor, Tensor, "Tensor | None"], Tensor]


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

#: backend -> (import name, extra that installs it); all of these run on CUDA in half precision only
_NEEDS = {"flash": ("flash_attn", "flash"), "xformers": ("xformers", "xformers")}


def attention_backend(name: str, device: torch.device, dtype: torch.dtype) -> AttentionFunction:
    """The backend called `name` ("auto" is `sdpa`), checked against the device and number format.

    Raises UsageError for an unknown name or a device or dtype it cannot run on, MissingError (exit 3) when its
    package is not installed.
    """
    if name == "auto":
        return sdpa
    if name not in BACKENDS:
        raise unknown_name("attention backend", name, ["auto", *BACKENDS])
    if name in _NEEDS:
        package, extra = _NEEDS[name]
        if find_spec(package) is None:
            raise MissingError(
                f"attention backend {name!r} needs {package}, which is not installed",
                hint=f"pip install 'sora-cli[{extra}]', or choose --attention sdpa",
            )
        if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16):
            raise UsageError(
                f"attention backend {name!r} runs on CUDA in bf16 or fp16, not on {device.type} in {dtype}",
                hint="choose --attention sdpa",
            )
    return BACKENDS[name]


def set_attention(model: nn.Module, backend: AttentionFunction) -> None:
    """Give every attention layer of `model` (every module with an `attend` attribute) this backend."""
    for module in model.modules():
        if hasattr(module, "attend"):
            module.attend = backend  # type: ignore[assignment]
