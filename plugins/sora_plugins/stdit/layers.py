"""Pieces shared by the STDiT family: embeddings, attention, modulation and the final layer.

Tensors inside the network are (B, T, S, D): batch, latent frames, positions in a frame, features. Parameter names
are those of the released checkpoints. Scalars (timestep, sizes, fps), position tables and rotary angles are kept in
float32 in every precision and cast where they meet the features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sora_cli.acceleration.attention import AttentionFunction, attend_packed, sdpa

FREQUENCY_WIDTH = 256


def sinusoid(values: Tensor, width: int) -> Tensor:
    """Sinusoidal embedding (n,) -> (n, width), cosine half first, phases in float32 (DDPM, Ho et al. 2020).

    An odd width ends with a column of zeros.
    """
    half = width // 2
    steps = torch.arange(half, dtype=torch.float32, device=values.device)
    angles = values.float()[:, None] * torch.exp(-math.log(10000.0) * steps / half)
    embedding = torch.cat([angles.cos(), angles.sin()], dim=-1)
    return F.pad(embedding, (0, width % 2))


def position_table(
    dim: int,
    rows: int,
    columns: int,
    *,
    scale: float,
    base: int | None,
    device: torch.device | str = "cpu",
    reference_rounding: bool = False,
) -> Tensor:
    """2-D sine table (1, rows * columns, dim): column code first, then row code, sine before cosine in each.

    Indices are divided by `scale` and, with `base`, stretched to a base x base grid, so that one network sees
    every size in the same coordinates. reference_rounding rounds the frequencies to bfloat16, as the
    reference does when it runs in that format.
    """
    quarter = torch.arange(dim // 4, dtype=torch.float32, device=device)
    frequencies = 1.0 / 10000 ** (quarter * 2 / (dim / 2))
    if reference_rounding:
        frequencies = frequencies.bfloat16().float()
    column = torch.arange(columns, dtype=torch.float32, device=device) / scale
    row = torch.arange(rows, dtype=torch.float32, device=device) / scale
    if base is not None:
        column, row = column * base / columns, row * base / rows
    column_code = column[:, None] * frequencies
    row_code = row[:, None] * frequencies
    column_code = torch.cat([column_code.sin(), column_code.cos()], dim=-1)
    row_code = torch.cat([row_code.sin(), row_code.cos()], dim=-1)
    table = torch.cat([column_code[None].expand(rows, -1, -1), row_code[:, None].expand(-1, columns, -1)], dim=-1)
    return table.reshape(1, rows * columns, dim)


def frame_table(dim: int, frames: int, *, scale: float, device: torch.device | str = "cpu") -> Tensor:
    """Sine table of frames (1, frames, dim), all sines before all cosines; indices are divided by `scale`."""
    half = torch.arange(dim // 2, dtype=torch.float64, device=device)
    index = torch.arange(frames, dtype=torch.float64, device=device) / scale
    angles = index[:, None] * 10000 ** (-2 * half / dim)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)[None].float()


class RotaryEmbedding(nn.Module):
    """Rotary positions over interleaved pairs of all channels of a head (Su et al. 2021).

    `freqs` is in the checkpoints and never trained. Angles are computed in float32 from the formula, so a
    checkpoint cast to bfloat16 keeps exact positions.
    """

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.freqs = nn.Parameter(self.formula("cpu"), requires_grad=False)

    def formula(self, device: torch.device | str) -> Tensor:
        """Frequencies (head_dim / 2,), float32."""
        steps = torch.arange(0, self.head_dim, 2, dtype=torch.float32, device=device)
        return 10000.0 ** (-steps / self.head_dim)

    def tables(self, length: int, device: torch.device, *, reference_rounding: bool = False) -> tuple[Tensor, Tensor]:
        """Cosine and sine (length, head_dim) for positions 0 .. length - 1, each angle repeated for its pair."""
        frequencies = self.formula(device)
        positions = torch.arange(length, dtype=torch.float32, device=device)
        if reference_rounding:
            frequencies, positions = frequencies.bfloat16(), positions.bfloat16()
        angles = (positions[:, None] * frequencies).repeat_interleave(2, dim=-1)
        return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (2j, 2j + 1) of x (..., head_dim) by the angles of the tables, which broadcast to x.

    In float32 unless the tables are bfloat16 (reference rounding); the result has the dtype of x.
    """
    if cos.dtype == torch.bfloat16:
        wide = x.to(cos.dtype)
        turned = torch.stack([-wide[..., 1::2], wide[..., 0::2]], dim=-1).flatten(-2)
        return (wide * cos + turned * sin).to(x.dtype)
    # One product of complex numbers, (a + ib)(cos + i sin), passes over x once instead of six times.
    turn = torch.complex(cos[..., ::2].contiguous(), sin[..., ::2].contiguous())
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turn).flatten(-2).to(x.dtype)


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis, eps 1e-6, statistics in float32 (Zhang and Sennrich 2019)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """x (..., dim) -> same shape and dtype, laid out without gaps."""
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), 1e-6)


class PatchEmbed(nn.Module):
    """Non-overlapping space-time patches to features; zero-pads the end of T, H and W to whole patches."""

    def __init__(self, patch_size: tuple[int, int, int], in_channels: int, dim: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv3d(in_channels, dim, kernel_size=patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, T, H, W) -> (B, t, h * w, D). A convolution whose stride is its kernel is one matrix product."""
        batch, channels = x.shape[:2]
        pads = [(-size) % patch for size, patch in zip(x.shape[2:], self.patch_size, strict=True)]
        x = F.pad(x, (0, pads[2], 0, pads[1], 0, pads[0]))
        (pt, ph, pw), (frames, height, width) = self.patch_size, x.shape[2:]
        t, h, w = frames // pt, height // ph, width // pw
        x = x.reshape(batch, channels, t, pt, h, ph, w, pw).permute(0, 2, 4, 6, 1, 3, 5, 7)
        return F.linear(x.reshape(batch, t, h * w, -1), self.proj.weight.flatten(1), self.proj.bias)


class ScalarEmbedder(nn.Module):
    """One scalar to a vector: sinusoid, linear, SiLU, linear. Used for timesteps and for sizes."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.mlp = nn.Sequential(nn.Linear(FREQUENCY_WIDTH, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, values: Tensor) -> Tensor:
        """values (n,), any scale -> (n, dim)."""
        return self.mlp(sinusoid(values, FREQUENCY_WIDTH).to(next(self.mlp.parameters()).dtype))


class SizeEmbedder(ScalarEmbedder):
    """Embeds one or several sizes per sample, each alone, and concatenates the vectors."""

    def forward(self, values: Tensor, batch: int | None = None) -> Tensor:
        """values (b,) or (b, n) -> (batch, n * dim). b must divide batch; the block is repeated: 0, 1, 0, 1, ..."""
        values = values.reshape(len(values), -1)
        batch = batch or len(values)
        if batch % len(values):
            raise ValueError(f"{len(values)} size rows do not tile to a batch of {batch}")
        values = values.repeat(batch // len(values), 1)
        return super().forward(values.flatten()).reshape(batch, -1)


class Mlp(nn.Module):
    """Two linear layers with tanh-GELU between."""

    def __init__(self, dim: int, hidden: int, out: int | None = None) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, out or dim)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., dim) -> (..., out)."""
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class CaptionEmbedder(nn.Module):
    """Projects text features and holds the learned embedding of "no text"."""

    y_embedding: Tensor

    def __init__(self, in_channels: int, dim: int, *, max_tokens: int, drop_probability: float) -> None:
        super().__init__()
        self.y_proj = Mlp(in_channels, dim, dim)
        self.drop_probability = drop_probability
        self.register_buffer("y_embedding", torch.randn(max_tokens, in_channels) / in_channels**0.5)

    def draw_drop_ids(self, batch: int) -> Tensor | None:
        """Which captions of a training batch to drop, (batch,), 1 with the drop probability; None when none can be."""
        if not self.training or self.drop_probability == 0:
            return None
        return (torch.rand(batch, device=self.y_embedding.device) < self.drop_probability).long()

    def drop(self, y: Tensor, ids: Tensor | None) -> Tensor:
        """Replace the captions y (B, 1, L, C) chosen by ids (B,) == 1 by "no text"."""
        if ids is None:
            return y
        rows = len(self.y_embedding)
        if y.shape[2] != rows:
            raise ValueError(f"captions of {y.shape[2]} tokens cannot be dropped: the table has {rows}")
        return torch.where((ids == 1)[:, None, None, None], self.y_embedding.to(y.dtype), y)

    def forward(self, y: Tensor, drop_ids: Tensor | None = None) -> Tensor:
        """y (B, 1, L, C) -> (B, 1, L, D)."""
        return self.y_proj(self.drop(y, drop_ids))


class SelfAttention(nn.Module):
    """Multi-head attention over one axis of (B, T, S, D), with optional q/k norm and rotary positions."""

    attend: AttentionFunction

    def __init__(self, dim: int, num_heads: int, *, qk_norm: bool, rope_first: bool = False) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        # In the order of the released files, which number the state of their optimizer by it.
        self.qkv = nn.Linear(dim, 3 * dim)
        self.q_norm: nn.Module = RMSNorm(self.head_dim) if qk_norm else nn.Identity()
        self.k_norm: nn.Module = RMSNorm(self.head_dim) if qk_norm else nn.Identity()
        self.proj = nn.Linear(dim, dim)
        self.rope_first = rope_first
        self.attend = sdpa

    def forward(self, x: Tensor, axis: int = 1, rope: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """x (B, T, S, D); axis 1 attends over frames, 2 over positions. rope: cosine and sine tables (length, d)."""
        if axis == 1:
            x = x.transpose(1, 2)
        *others, length, dim = x.shape
        # Flat, with one copy here for axis 1: torch turns a product with a strided tensor into a product for each row,
        # all with their own copy of the weights.
        qkv = self.qkv(x.reshape(-1, dim))
        q, k, v = qkv.view(-1, length, 3, self.num_heads, self.head_dim).unbind(2)
        if rope is not None:
            rope = rope[0][:, None], rope[1][:, None]  # the same for all heads
        if rope is not None and self.rope_first:
            q, k = rotate(q, *rope), rotate(k, *rope)
        q, k = self.q_norm(q), self.k_norm(k)
        if rope is not None and not self.rope_first:
            q, k = rotate(q, *rope), rotate(k, *rope)
        out = self.attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), None)
        out = self.proj(out.transpose(1, 2).reshape(*others, length, dim))
        return out.transpose(1, 2) if axis == 1 else out


class PackedText:
    """Projected text of a batch: only the real tokens, one sample after the other.

    tokens: (1, sum of lengths, D). lengths: tokens per sample. text[2:5] is the text of those samples.
    is_reused: the same text is shown to the network again and again, so the keys and values that the layers make of it
    are kept, 4 D bytes per token and layer in bfloat16, instead of being made anew at each step. They are never kept
    while gradients are recorded.
    """

    def __init__(self, tokens: Tensor, lengths: Sequence[int], *, is_reused: bool = False) -> None:
        if min(lengths) < 1:
            raise ValueError("every caption needs at least one token")
        if sum(lengths) != tokens.shape[1]:
            raise ValueError(f"{tokens.shape[1]} packed tokens but lengths add up to {sum(lengths)}")
        self.tokens = tokens
        self.lengths = list(lengths)
        self.is_reused = is_reused
        self._kept: dict[nn.Module, Tensor] = {}
        self._whole: tuple[PackedText, slice] | None = None

    def __getitem__(self, rows: slice) -> PackedText:
        """Of some neighbouring samples."""
        start, stop, step = rows.indices(len(self.lengths))
        if step != 1:
            raise ValueError("packed text is cut between samples, not into every second one")
        if (start, stop) == (0, len(self.lengths)):
            return self
        tokens = slice(sum(self.lengths[:start]), sum(self.lengths[:stop]))
        part = PackedText(self.tokens[:, tokens], self.lengths[start:stop])
        part._whole = self, tokens
        return part

    def projected(self, layer: nn.Module) -> Tensor:
        """The tokens after a layer, (sum of lengths, its width); the pieces of one batch share one call of it."""
        if torch.is_grad_enabled():
            return layer(self.tokens[0])
        if self._whole is not None:
            whole, tokens = self._whole
            return whole.projected(layer)[tokens]
        if layer not in self._kept:
            if not self.is_reused:
                self._kept.clear()  # only for the pieces of the call that goes on now
            self._kept[layer] = layer(self.tokens[0])
        return self._kept[layer]


class CrossAttention(nn.Module):
    """Image tokens attend to the text of their own sample.

    is_packed: each sample sees its tokens in a call of its own (or a kernel for packed sequences); otherwise shorter
    texts are padded and masked. The results are equal up to rounding.
    """

    attend: AttentionFunction

    def __init__(self, dim: int, num_heads: int, *, is_packed: bool = True) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.q_linear = nn.Linear(dim, dim)
        self.kv_linear = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        self.is_packed = is_packed
        self.attend = sdpa

    def forward(self, x: Tensor, text: PackedText) -> Tensor:
        """x (B, T, S, D) -> same shape."""
        q = self.q_linear(x).reshape(len(x), -1, self.num_heads, self.head_dim)
        k, v = text.projected(self.kv_linear).view(-1, 2, self.num_heads, self.head_dim).unbind(1)
        out = attend_packed(self.attend, q, k, v, text.lengths, is_masked=not self.is_packed)
        return self.proj(out.reshape(x.shape))


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Layer norm without parameters (eps 1e-6), then x * (1 + scale) + shift (adaLN, Peebles and Xie 2022)."""
    width = x.shape[-1:]
    if shift.numel() == x.shape[-1]:  # one row for all tokens: the norm applies it in the same pass
        return F.layer_norm(x, width, (1 + scale).flatten(), shift.flatten(), eps=1e-6)
    return torch.addcmul(shift, F.layer_norm(x, width, eps=1e-6), 1 + scale)


class DropPath(nn.Module):
    """Stochastic depth: drops a whole branch per sample in training (Huang et al. 2016). rate in [0, 1]."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """x (B, ...) -> same shape; kept samples are scaled by 1 / (1 - rate)."""
        if not self.training or self.rate == 0:
            return x
        if self.rate >= 1:
            return x * 0
        keep = torch.rand(len(x), device=x.device) >= self.rate
        return x * keep.view(-1, *[1] * (x.dim() - 1)) / (1 - self.rate)


class FinalLayer(nn.Module):
    """Modulated norm and linear layer to the output channels of each patch."""

    def __init__(self, dim: int, out_features: int) -> None:
        super().__init__()
        self.scale_shift_table = nn.Parameter(torch.randn(2, dim) / dim**0.5)
        self.linear = nn.Linear(dim, out_features)

    def forward(self, x: Tensor, v: Tensor, x_mask: Tensor | None = None, v0: Tensor | None = None) -> Tensor:
        """x (B, T, S, D), v and v0 (B, D) embedding vectors of the timestep and of timestep 0 -> (B, T, S, out).

        Frames given as condition (x_mask False) are normalised and modulated a second time, as the released
        weights were trained; their outputs are discarded by the samplers.
        """
        shift, scale = (self.scale_shift_table + v[:, None]).chunk(2, dim=1)
        x = modulate(x, shift[:, None], scale[:, None])
        if x_mask is not None and v0 is not None:
            shift, scale = (self.scale_shift_table + v0[:, None]).chunk(2, dim=1)
            x = torch.where(x_mask[:, :, None, None], x, modulate(x, shift[:, None], scale[:, None]))
        return self.linear(x)
