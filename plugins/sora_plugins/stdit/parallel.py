"""Sequence parallelism: the processes of a group share every call of the network.

Positions of a frame are split over the processes (Ulysses, Jacobs et al. 2023, arXiv 2309.14509). Spatial attention
exchanges heads for positions before and back after; everything else, temporal and cross attention included, sees only
its own positions. Where positions do not divide, the rest is filled up with zeros that attention never sees, so the
result is that of one process for every size.

With gradients: the mean of every parameter's gradient over the processes is the gradient on one.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from sora_cli.acceleration.attention import AttentionFunction
from sora_cli.errors import UsageError

POSITIONS = 2  # axis of (B, T, S, D)


def shard(model: Any, group: dist.ProcessGroup) -> None:
    """Split every call of a network over the processes of a group. Call it after the attention backend is chosen.

    Raises UsageError when the heads cannot be shared out evenly.
    """
    count = dist.get_world_size(group)
    heads = model.config.num_heads
    if heads % count:
        possible = ", ".join(str(size) for size in range(1, heads + 1) if heads % size == 0)
        raise UsageError(
            f"{count} processes cannot share the {heads} attention heads of this model",
            hint=f"--sequence-parallel can be {possible}",
        )
    state = _Split(group)
    blocks: Any = model.blocks if isinstance(model.blocks, nn.ModuleList) else model.spatial_blocks
    for block in blocks:
        block.attn.attend = _exchanging(block.attn.attend, state)
    blocks[0].register_forward_pre_hook(state.split)
    model.final_layer.register_forward_pre_hook(state.gather)


class _Split:
    """The true number of positions of the call that is running."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.group = group
        self.count, self.rank = dist.get_world_size(group), dist.get_rank(group)
        self.positions = 0

    def split(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        tokens, *rest = inputs
        self.positions = tokens.shape[POSITIONS]
        return (_SplitPositions.apply(tokens, self), *rest)

    def gather(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        tokens, *rest = inputs
        return (_GatherPositions.apply(tokens, self), *rest)

    def own(self, tokens: Tensor) -> Tensor:
        """This process's positions of all, filled up with zeros to equal shares."""
        tokens = F.pad(tokens, (0, 0, 0, -tokens.shape[POSITIONS] % self.count))
        return tokens.chunk(self.count, dim=POSITIONS)[self.rank].contiguous()

    def whole(self, tokens: Tensor) -> Tensor:
        """All positions from every process's, without those that only fill up."""
        parts = [torch.empty_like(tokens) for _ in range(self.count)]
        dist.all_gather(parts, tokens.contiguous(), group=self.group)
        return torch.cat(parts, dim=POSITIONS)[:, :, : self.positions]


class _SplitPositions(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, state: _Split) -> Tensor:
        ctx.state = state
        return state.own(tokens)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.state.whole(gradient) / ctx.state.count, None


class _GatherPositions(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tokens: Tensor, state: _Split) -> Tensor:
        ctx.state = state
        return state.whole(tokens)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.state.own(gradient) * ctx.state.count, None


class _Exchange(torch.autograd.Function):
    """(n, heads, own positions, d) <-> (n, own heads, positions, d); each direction is the other's gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, state: _Split, to_heads: bool) -> Tensor:
        ctx.state, ctx.to_heads = state, to_heads
        return _exchange(x, state, to_heads)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _exchange(gradient, ctx.state, not ctx.to_heads), None, None


def _exchange(x: Tensor, state: _Split, to_heads: bool) -> Tensor:
    scattered, gathered = (1, 2) if to_heads else (2, 1)
    sent = torch.stack(x.chunk(state.count, dim=scattered)).contiguous()
    received = torch.empty_like(sent)
    # Bytes, because not every library sends bfloat16.
    dist.all_to_all_single(_bytes(received), _bytes(sent), group=state.group)
    return torch.cat(list(received.unbind(0)), dim=gathered)


def _bytes(x: Tensor) -> Tensor:
    return x.view(torch.uint8)


def _exchanging(attend: AttentionFunction, state: _Split) -> AttentionFunction:
    """Attention over all positions with this process's share of the heads."""

    def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        own = q.shape[2]
        q, k, v = (_Exchange.apply(x, state, True)[:, :, : state.positions] for x in (q, k, v))
        out = F.pad(attend(q, k, v, mask), (0, 0, 0, own * state.count - state.positions))
        exchanged: Tensor = _Exchange.apply(out, state, False)
        return exchanged

    return attention
