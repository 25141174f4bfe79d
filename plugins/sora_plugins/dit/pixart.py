"""PixArt: transformer blocks over all tokens of a picture or clip that read the whole text (Chen et al. 2023).

One network for PixArt-alpha, PixArt-MS, which is told the size of pictures, and PixArt-Sigma. x (B, C, T, H, W) is cut
into patches; features are (B, 1, T * S, D) in the blocks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sora_plugins.stdit.layers import (
    CaptionEmbedder,
    CrossAttention,
    DropPath,
    FinalLayer,
    Mlp,
    PackedText,
    PatchEmbed,
    ScalarEmbedder,
    SelfAttention,
    SizeEmbedder,
    modulate,
)
from sora_plugins.stdit.network import Network
from sora_plugins.stdit.stdit1 import with_options

from .config import PixArtConfig
from .layers import (
    WITHIN_FRAMES,
    Blocks,
    frame_table,
    initialize_linear,
    plane_table,
    refuse_given_frames,
    token_grid,
    unpatchify,
)

if TYPE_CHECKING:
    from .options import PixArtOptions


class CompressedAttention(SelfAttention):
    """Attention of all tokens of a picture to fewer keys and values (PixArt-Sigma, Chen et al. 2024).

    sampling: one of config.SAMPLINGS; factor: of how many tokens along a side one is kept, above 1.
    """

    def __init__(self, dim: int, num_heads: int, *, qk_norm: bool, sampling: str, factor: int) -> None:
        super().__init__(dim, num_heads, qk_norm=qk_norm)
        self.sampling = sampling
        self.factor = factor
        if sampling == "conv":
            self.sr = nn.Conv2d(dim, dim, kernel_size=factor, stride=factor, groups=dim)
            self.norm = nn.LayerNorm(dim)

    def reduce(self, tokens: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """Fewer of the tokens (B, S, D) of a picture, (B, fewer, D)."""
        if self.sampling == "uniform_every":
            return tokens[:, :: self.factor]
        plane = tokens.unflatten(1, grid[1:]).permute(0, 3, 1, 2)
        if self.sampling == "uniform":
            plane = plane[:, :, :: self.factor, :: self.factor]
        elif self.sampling == "ave":
            plane = F.interpolate(plane, scale_factor=1 / self.factor, mode="nearest")
        else:
            plane = self.sr(plane)
        reduced = plane.flatten(2).transpose(1, 2)
        return self.norm(reduced) if self.sampling == "conv" else reduced

    def forward(self, x: Tensor, grid: tuple[int, int, int]) -> Tensor:  # type: ignore[override]
        """x (B, 1, S, D) -> same shape. Raises ValueError for clips, which have no such keys."""
        if grid[0] != 1:
            raise ValueError(f"keys and values are compressed in pictures, not in clips of {grid[0]} latent frames")
        q, k, v = self.qkv(x[:, 0]).chunk(3, dim=-1)
        k, v = self.reduce(k, grid), self.reduce(v, grid)
        q, k, v = (part.unflatten(2, (self.num_heads, self.head_dim)) for part in (q, k, v))
        q, k = self.q_norm(q), self.k_norm(k)
        out = self.attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), None)
        return self.proj(out.transpose(1, 2).flatten(2))[:, None]


class PixArtBlock(nn.Module):
    """Self attention, cross attention to the text, MLP; the first and last are modulated and gated.

    index: its place, which says whether its keys and values are compressed.
    """

    def __init__(self, config: PixArtConfig, index: int, *, drop_path: float, is_packed: bool) -> None:
        super().__init__()
        dim = config.hidden_size
        compression = config.compression(index)
        self.attn: SelfAttention
        if compression is None:
            self.attn = SelfAttention(dim, config.num_heads, qk_norm=config.qk_norm)
        else:
            sampling, factor = compression
            self.attn = CompressedAttention(
                dim, config.num_heads, qk_norm=config.qk_norm, sampling=sampling, factor=factor
            )
        self.cross_attn = CrossAttention(dim, config.num_heads, is_packed=is_packed)
        self.mlp = Mlp(dim, int(dim * config.mlp_ratio))
        self.scale_shift_table = nn.Parameter(torch.randn(6, dim) / dim**0.5)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, text: PackedText, c: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """x (B, 1, N, D), c (B, 6 D) of the timestep, grid: tokens along T, H and W -> as x."""
        rows = (self.scale_shift_table + c.view(len(c), 6, -1))[:, :, None, None]
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = rows.unbind(1)
        # Nothing of a branch has a name, so that its memory is free for the next one.
        where: Any = grid if isinstance(self.attn, CompressedAttention) else WITHIN_FRAMES
        x = torch.addcmul(x, gate_a, self.drop_path(self.attn(modulate(x, shift_a, scale_a), where)))
        x = x + self.cross_attn(x, text)
        return torch.addcmul(x, gate_m, self.drop_path(self.mlp(modulate(x, shift_m, scale_m))))


class PixArt(Network):
    """The network; see `forward`."""

    def __init__(self, config: PixArtConfig, options: PixArtOptions | None = None) -> None:
        rounding = options is not None and options.reference_rounding
        super().__init__(config, reference_rounding=rounding)  # type: ignore[arg-type]  # has the fields it reads
        dim = config.hidden_size
        self.x_embedder = PatchEmbed(config.patch_size, config.in_channels, dim)
        self.t_embedder = ScalarEmbedder(dim)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.y_embedder = CaptionEmbedder(
            config.caption_channels, dim, max_tokens=config.model_max_length, drop_probability=config.class_dropout_prob
        )
        if config.has_size_conditions:
            self.csize_embedder, self.ar_embedder = SizeEmbedder(dim // 3), SizeEmbedder(dim // 3)
        is_packed = options is None or options.cross_attention == "packed"
        last = max(config.depth - 1, 1)
        self.blocks = Blocks(
            PixArtBlock(config, index, drop_path=config.drop_path * index / last, is_packed=is_packed)
            for index in range(config.depth)
        )
        self.final_layer = FinalLayer(dim, math.prod(config.patch_size) * self.out_channels)
        self.initialize()

    def initialize(self) -> None:
        """Initial weights of the original: the text has no effect, the output is zero."""
        initialize_linear(self)
        for name in (
            "t_embedder.mlp.0",
            "t_embedder.mlp.2",
            "t_block.1",
            "y_embedder.y_proj.fc1",
            "y_embedder.y_proj.fc2",
        ):
            nn.init.normal_(self.get_parameter(f"{name}.weight"), std=0.02)
        for block in self.blocks:
            nn.init.zeros_(block.get_parameter("cross_attn.proj.weight"))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # of compressed attention: the mean
                nn.init.constant_(module.weight, 1 / module.kernel_size[0] ** 2)
                nn.init.zeros_(module.get_parameter("bias"))
        nn.init.zeros_(self.final_layer.linear.weight)

    def size_vectors(self, height: Tensor | None, width: Tensor | None, ar: Tensor | None, batch: int) -> Tensor:
        """What the network is told of sizes, (batch, D). Sizes are (b,), b divides the batch, and they are tiled."""
        if height is None or width is None:
            raise ValueError("this network needs the height and width of pictures in pixels")
        ratio = height.float() / width.float() if ar is None else ar
        sizes = self.csize_embedder(torch.stack([height.float(), width.float()], dim=1), batch)
        return torch.cat([sizes, self.ar_embedder(ratio, batch)], dim=1)

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        y: Tensor | PackedText,
        mask: Tensor | None = None,
        x_mask: Tensor | None = None,
        *,
        height: Tensor | None = None,
        width: Tensor | None = None,
        ar: Tensor | None = None,
        drop_ids: Tensor | None = None,
        num_frames: Tensor | None = None,
        fps: Tensor | None = None,
    ) -> Tensor:
        """Predict the noise, and with `pred_sigma` where its variance lies between the bounds.

        x: (B, C, T, H, W) noisy latents in whole patches. timestep: (B,) in 0 .. 1000. y: text (B, 1, L, C_text), or
        what `encode_text` made of it; mask: (b, L), not 0 for real tokens. height, width, ar: (b,) size in pixels and
        height / width, seen by networks with size conditions alone; b divides B. drop_ids: (B,), 1 replaces the caption
        by "no text"; when it is not given, a network in training draws it. num_frames and fps are accepted and not
        used, but frames cannot be given (x_mask). Returns (B, C or 2C, T, H, W) in float32.
        """
        refuse_given_frames(x_mask)
        batch, dtype = len(x), self.x_embedder.proj.weight.dtype
        grid = token_grid(x.shape[2:], self.config.patch_size)
        tokens = self.x_embedder(x.to(dtype)) + self.positions(grid, x.device).to(dtype)
        v = self.t_embedder(timestep.bfloat16() if self.reference_rounding else timestep)
        if self.config.has_size_conditions:
            v = v + self.size_vectors(height, width, ar, batch)
        text = self.text_of(y, mask, drop_ids, batch)
        c = self.t_block(v)
        tokens = tokens.flatten(1, 2)[:, None]
        for block in self.blocks:
            tokens = block(tokens, text, c, grid)
        return unpatchify(self.final_layer(tokens, v), grid, self.config.patch_size)

    def positions(self, grid: tuple[int, int, int], device: torch.device) -> Tensor:
        """Positions of all tokens, (T or 1, S, D), float32."""
        config, (frames, rows, columns) = self.config, grid
        width, base = config.hidden_size, config.base(rows, columns)
        table = plane_table(width, rows, columns, scale=config.space_scale, base=base, device=device)[None]
        if config.no_temporal_pos_emb:
            return table
        return table + frame_table(width, frames, scale=config.time_scale, device=device)[:, None]


def build(config: Mapping[str, Any], options: PixArtOptions | None = None) -> PixArt:
    """A PixArt from the fields of a config.json; used as the target of model specs."""
    chosen = ("space_scale", "time_scale", "no_temporal_pos_emb")
    return PixArt(with_options(PixArtConfig.from_mapping(config), options, chosen), options)
