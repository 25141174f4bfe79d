"""STDiT3, the network of Open-Sora 1.2: alternating spatial and temporal transformer blocks.

x (B, C, T, H, W) is cut into patches; features stay (B, T, S, D) through all blocks. One device, plain torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .config import STDiT3Config
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

if TYPE_CHECKING:
    from .options import STDiTOptions


class STDiT3Block(nn.Module):
    """Self attention over one axis, cross attention to the text, MLP; the first and last are modulated and gated.

    tokens_at_once: size of the pieces, None for the device's own. Processes that share a clip and exchange data inside
    a block must cut it alike.
    """

    def __init__(self, config: STDiT3Config, *, axis: int, drop_path: float, is_packed: bool = True) -> None:
        super().__init__()
        dim = config.hidden_size
        self.axis = axis
        self.tokens_at_once: int | None = None
        self.attn = SelfAttention(dim, config.num_heads, qk_norm=config.qk_norm)
        self.cross_attn = CrossAttention(dim, config.num_heads, is_packed=is_packed)
        self.mlp = Mlp(dim, int(dim * config.mlp_ratio))
        self.scale_shift_table = nn.Parameter(torch.randn(6, dim) / dim**0.5)
        self.drop_path = DropPath(drop_path)

    def forward(
        self,
        x: Tensor,
        text: PackedText,
        c: Tensor,
        x_mask: Tensor | None = None,
        c0: Tensor | None = None,
        rope: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """x (B, T, S, D) -> same shape; x is not changed."""
        return in_pieces(
            x,
            text,
            modulation_rows(self.scale_shift_table, c, x_mask, c0),
            lambda x, text, rows: self.transform(x, text, rows, None if self.axis == SPATIAL else rope),
            axis=self.axis,
            tokens_at_once=self.tokens_at_once,
        )

    def transform(self, x: Tensor, text: PackedText, rows: Tensor, rope: tuple[Tensor, Tensor] | None) -> Tensor:
        """The block on x (B, T, S, D), whole along its axis. rows: of these samples and frames."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = rows.unbind(0)
        branch = self.attn(modulate(x, shift_a, scale_a), self.axis, rope)
        x = torch.addcmul(x, gate_a, self.drop_path(branch))
        x = x + self.cross_attn(x, text)
        branch = self.mlp(modulate(x, shift_m, scale_m))
        return torch.addcmul(x, gate_m, self.drop_path(branch))


class STDiT3(Network):
    """The network; see `forward`."""

    def __init__(self, config: STDiT3Config, options: STDiTOptions | None = None) -> None:
        super().__init__(config, reference_rounding=options is not None and options.reference_rounding)
        dim = config.hidden_size
        self.rope = RotaryEmbedding(dim // config.num_heads)
        self.x_embedder = PatchEmbed(config.patch_size, config.in_channels, dim)
        self.t_embedder = ScalarEmbedder(dim)
        self.fps_embedder = SizeEmbedder(dim)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.y_embedder = CaptionEmbedder(
            config.caption_channels, dim, max_tokens=config.model_max_length, drop_probability=config.class_dropout_prob
        )
        rates = config.drop_rates()
        is_packed = options is None or options.cross_attention == "packed"
        self.spatial_blocks, self.temporal_blocks = (
            nn.ModuleList(STDiT3Block(config, axis=axis, drop_path=rate, is_packed=is_packed) for rate in rates)
            for axis in (SPATIAL, TEMPORAL)
        )
        self.final_layer = FinalLayer(dim, math.prod(config.patch_size) * self.out_channels)
        self.initialize()

    def initialize(self) -> None:
        """Initial weights of the reference: Xavier everywhere, temporal blocks start as the identity."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.fps_embedder.get_parameter("mlp.0.weight"), std=0.02)
        nn.init.zeros_(self.fps_embedder.get_parameter("mlp.2.weight"))
        for block in self.temporal_blocks:
            for name in ("attn.proj.weight", "cross_attn.proj.weight", "mlp.fc2.weight"):
                nn.init.zeros_(block.get_parameter(name))

    def blocks(self) -> list[nn.Module]:
        """The large parts in the order in which they run."""
        return [block for pair in zip(self.spatial_blocks, self.temporal_blocks, strict=True) for block in pair]

    def pack_text(self, y: Tensor, mask: Tensor | None = None, drop_ids: Tensor | None = None) -> PackedText:
        """As the base. With `skip_y_embedder` y is projected and packed already, (1, sum of lengths, D), and mask holds
        the lengths."""
        if not self.config.skip_y_embedder:
            return super().pack_text(y, mask, drop_ids)
        if mask is None:
            raise ValueError("packed text needs the lengths of its captions as mask")
        return PackedText(y.to(self.x_embedder.proj.weight.dtype), [int(length) for length in mask])

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        y: Tensor | PackedText,
        mask: Tensor | None = None,
        x_mask: Tensor | None = None,
        *,
        fps: Tensor,
        height: Tensor,
        width: Tensor,
        drop_ids: Tensor | None = None,
        **unused: Any,
    ) -> Tensor:
        """Predict the velocity.

        x: (B, C, T, H, W) noisy latents, any T, H, W. timestep: (B,) in 0 .. 1000. y: text (B, 1, L, C_text), or what
        `encode_text` made of it; mask: (b, L), 1 for real tokens. x_mask: (B, t) bool per patched frame, True =
        generate, False = given (seen as timestep 0). fps, height, width: (b,) frame rate and size in pixels; one size
        per batch, b divides B. drop_ids: (B,), 1 replaces the caption by "no text"; when it is not given, a
        network in training draws it. Other size information is accepted
        and not used. Returns (B, C or 2C, T, H, W) in float32.
        """
        dtype = self.x_embedder.proj.weight.dtype
        batch, _, *size = x.shape
        tokens = self.x_embedder(x.to(dtype))
        grid = self.grid(size)
        tokens = tokens + self.position_table(grid, height, width, x.device).to(dtype)

        fps_vector = self.fps_embedder(self.rounded(fps), batch)
        v = self.t_embedder(self.rounded(timestep)) + fps_vector
        c = self.t_block(v)
        v0 = c0 = None
        if x_mask is not None:
            v0 = self.t_embedder(torch.zeros_like(timestep)) + fps_vector
            c0 = self.t_block(v0)
        text = self.text_of(y, mask, drop_ids, batch)
        rope = self.rotary_tables(grid[0], x.device)
        for spatial, temporal in zip(self.spatial_blocks, self.temporal_blocks, strict=True):
            tokens = spatial(tokens, text, c, x_mask, c0)
            tokens = temporal(tokens, text, c, x_mask, c0, rope)
        return self.unpatchify(self.final_tokens(tokens, v, x_mask, v0), grid, size)


def build(config: Mapping[str, Any], options: STDiTOptions | None = None) -> STDiT3:
    """An STDiT3 from the fields of a config.json; used as the target of model specs."""
    return STDiT3(STDiT3Config.from_mapping(config), options)
