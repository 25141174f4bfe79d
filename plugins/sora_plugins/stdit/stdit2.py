"""STDiT2, the network of Open-Sora 1.1: as STDiT, told size, length and frame rate, for clips of any of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .config import STDiT2Config
from .layers import (
    CaptionEmbedder,
    CrossAttention,
    DropPath,
    FinalLayer,
    Mlp,
    PackedText,
    PatchEmbed,
    RotaryEmbedding,
    ScalarEmbedder,
    SelfAttention,
    SizeEmbedder,
    modulate,
)
from .network import SPATIAL, TEMPORAL, Network, in_pieces, modulation_rows
from .stdit1 import Blocks, initialize, with_options

if TYPE_CHECKING:
    from .options import STDiT2Options


class STDiT2Block(nn.Module):
    """Attention over positions, over frames and to the text, then MLP; all but the text are modulated and gated.

    tokens_at_once: size of the pieces, None for the device's own.
    """

    def __init__(self, config: STDiT2Config, *, drop_path: float, is_packed: bool = True) -> None:
        super().__init__()
        dim, heads = config.hidden_size, config.num_heads
        self.tokens_at_once: int | None = None
        self.scale_shift_table = nn.Parameter(torch.randn(6, dim) / dim**0.5)
        self.scale_shift_table_temporal = nn.Parameter(torch.randn(3, dim) / dim**0.5)
        self.attn = SelfAttention(dim, heads, qk_norm=config.qk_norm)
        self.cross_attn = CrossAttention(dim, heads, is_packed=is_packed)
        self.mlp = Mlp(dim, int(dim * config.mlp_ratio))
        self.attn_temp = SelfAttention(dim, heads, qk_norm=config.qk_norm, rope_first=config.qk_norm_legacy)
        self.drop_path = DropPath(drop_path)

    def forward(
        self,
        x: Tensor,
        text: PackedText,
        c: tuple[Tensor, Tensor],
        x_mask: Tensor | None = None,
        c0: tuple[Tensor, Tensor] | None = None,
        rope: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """x (B, T, S, D) -> same shape; x is not changed.

        c, c0: (B, 6 D) for positions and MLP, and (B, 3 D) for frames; from the timestep and from timestep 0.
        """
        tables = self.scale_shift_table, self.scale_shift_table_temporal
        rows, frame_rows = (
            modulation_rows(table, c[index], x_mask, None if c0 is None else c0[index])
            for index, table in enumerate(tables)
        )
        x = in_pieces(x, text, rows[:3], self.over_positions, axis=SPATIAL, tokens_at_once=self.tokens_at_once)
        return in_pieces(
            x,
            text,
            torch.cat([frame_rows, rows[3:]]),
            lambda x, text, rows: self.over_frames(x, text, rows, rope),
            axis=TEMPORAL,
            tokens_at_once=self.tokens_at_once,
            overwrites=True,
        )

    def over_positions(self, x: Tensor, text: PackedText, rows: Tensor) -> Tensor:
        """The first branch on whole frames. rows: shift, scale, gate."""
        return self._add(x, self.attn(modulate(x, rows[0], rows[1]), SPATIAL), rows[2])

    def over_frames(self, x: Tensor, text: PackedText, rows: Tensor, rope: tuple[Tensor, Tensor] | None) -> Tensor:
        """The other branches on some positions of all frames. rows: shift, scale, gate of frames, then of the MLP."""
        x = self._add(x, self.attn_temp(modulate(x, rows[0], rows[1]), TEMPORAL, rope), rows[2])
        x = x + self.cross_attn(x, text)
        return self._add(x, self.mlp(modulate(x, rows[3], rows[4])), rows[5])

    def _add(self, x: Tensor, branch: Tensor, gate: Tensor) -> Tensor:
        return torch.addcmul(x, gate, self.drop_path(branch))


class STDiT2(Network):
    """The network; see `forward`."""

    def __init__(self, config: STDiT2Config, options: STDiT2Options | None = None) -> None:
        super().__init__(config, reference_rounding=options is not None and options.reference_rounding)
        dim = config.hidden_size
        self.x_embedder = PatchEmbed(config.patch_size, config.in_channels, dim)
        self.t_embedder = ScalarEmbedder(dim)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.t_block_temp = nn.Sequential(nn.SiLU(), nn.Linear(dim, 3 * dim))
        self.y_embedder = CaptionEmbedder(
            config.caption_channels, dim, max_tokens=config.model_max_length, drop_probability=config.class_dropout_prob
        )
        self.rope = RotaryEmbedding(dim // config.num_heads)
        is_packed = options is None or options.cross_attention == "packed"
        self.blocks = Blocks(STDiT2Block(config, drop_path=rate, is_packed=is_packed) for rate in config.drop_rates())
        self.final_layer = FinalLayer(dim, math.prod(config.patch_size) * self.out_channels)
        self.csize_embedder = SizeEmbedder(dim // 3)
        self.ar_embedder = SizeEmbedder(dim // 3)
        self.fl_embedder = SizeEmbedder(dim)
        self.fps_embedder = SizeEmbedder(dim)
        initialize(self)

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        y: Tensor | PackedText,
        mask: Tensor | None = None,
        x_mask: Tensor | None = None,
        *,
        num_frames: Tensor,
        height: Tensor,
        width: Tensor,
        ar: Tensor,
        fps: Tensor,
        drop_ids: Tensor | None = None,
        **unused: Any,
    ) -> Tensor:
        """Predict the noise and, with `pred_sigma`, what its variance is read from.

        x: (B, C, T, H, W) noisy latents, any T, H, W. timestep: (B,) in 0 .. 1000. y, mask, x_mask, drop_ids: as of
        STDiT3. num_frames, height, width, ar, fps: (b,) video frames, size in pixels, height / width and frame rate,
        120 for pictures; b divides B. Positions are those of the first sample's size. Returns (B, C or 2C, T, H, W)
        in float32.
        """
        dtype = self.x_embedder.proj.weight.dtype
        batch, _, *size = x.shape
        grid = self.grid(size)
        tokens = self.x_embedder(x.to(dtype)) + self.position_table(grid, height, width, x.device).to(dtype)
        sizes = self.csize_embedder(self.rounded(torch.stack([height, width], dim=1)), batch)
        sizes = torch.cat([sizes, self.ar_embedder(self.rounded(ar), batch)], dim=1)
        lengths = self.fl_embedder(self.rounded(num_frames), batch) + self.fps_embedder(self.rounded(fps), batch)
        v = self.t_embedder(self.rounded(timestep))
        c = self.t_block(v + sizes), self.t_block_temp(v + lengths)
        v0 = c0 = None
        if x_mask is not None:
            at_zero = self.t_embedder(torch.zeros_like(timestep))
            # The final layer sees sizes only here: so the released weights were trained.
            v0 = at_zero + sizes
            c0 = self.t_block(v0), self.t_block_temp(at_zero + lengths)
        text = self.text_of(y, mask, drop_ids, batch)
        rope = self.rotary_tables(grid[0], x.device)
        for block in self.blocks:
            tokens = block(tokens, text, c, x_mask, c0, rope)
        return self.unpatchify(self.final_tokens(tokens, v, x_mask, v0), grid, size)


def build(config: Mapping[str, Any], options: STDiT2Options | None = None) -> STDiT2:
    """An STDiT2 from the fields of a config.json; used as the target of model specs."""
    return STDiT2(with_options(STDiT2Config.from_mapping(config), options, ("qk_norm_legacy",)), options)
