"""STDiT, the network of Open-Sora 1.0: blocks that attend over positions, then over frames.

Its released files carry tables of positions for one size; here tables are made for the size at hand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .config import STDiTConfig
from .layers import (
    CaptionEmbedder,
    CrossAttention,
    DropPath,
    FinalLayer,
    Mlp,
    PackedText,
    PatchEmbed,
    ScalarEmbedder,
    SelfAttention,
    frame_table,
    modulate,
    position_table,
)
from .network import SPATIAL, TEMPORAL, Network, in_pieces, modulation_rows

if TYPE_CHECKING:
    from .options import STDiT1Options


class Blocks(nn.ModuleList):
    """Blocks under the name of the released files; called, as the method `blocks` of other networks, it lists them."""

    def forward(self) -> list[nn.Module]:
        """The large parts in the order in which they run."""
        return list(self)


class STDiTBlock(nn.Module):
    """Attention over positions, over frames and to the text, then MLP; attention over frames has no norm before it.

    tokens_at_once: size of the pieces, None for the device's own.
    """

    def __init__(self, config: STDiTConfig, *, drop_path: float, is_packed: bool = True) -> None:
        super().__init__()
        dim = config.hidden_size
        self.tokens_at_once: int | None = None
        self.scale_shift_table = nn.Parameter(torch.randn(6, dim) / dim**0.5)
        self.attn = SelfAttention(dim, config.num_heads, qk_norm=False)
        self.cross_attn = CrossAttention(dim, config.num_heads, is_packed=is_packed)
        self.mlp = Mlp(dim, int(dim * config.mlp_ratio))
        self.attn_temp = SelfAttention(dim, config.num_heads, qk_norm=False)
        self.drop_path = DropPath(drop_path)

    def forward(
        self,
        x: Tensor,
        text: PackedText,
        c: Tensor,
        x_mask: Tensor | None = None,
        c0: Tensor | None = None,
        frames: Tensor | None = None,
    ) -> Tensor:
        """x (B, T, S, D) -> same shape; x is not changed. frames: codes (T, 1, D) that attention over frames sees."""
        rows = modulation_rows(self.scale_shift_table, c, x_mask, c0)
        x = in_pieces(x, text, rows[:3], self.over_positions, axis=SPATIAL, tokens_at_once=self.tokens_at_once)
        # The gate of the timestep for all frames, given ones too: so the released weights were trained.
        gate = modulation_rows(self.scale_shift_table, c, None, None)[2:3].expand(-1, -1, rows.shape[2], -1, -1)
        return in_pieces(
            x,
            text,
            torch.cat([gate, rows[3:]]),
            lambda x, text, rows: self.over_frames(x, text, rows, frames),
            axis=TEMPORAL,
            tokens_at_once=self.tokens_at_once,
            overwrites=True,
        )

    def over_positions(self, x: Tensor, text: PackedText, rows: Tensor) -> Tensor:
        """The first branch on whole frames. rows: shift, scale, gate."""
        shift, scale, gate = rows.unbind(0)
        return torch.addcmul(x, gate, self.drop_path(self.attn(modulate(x, shift, scale), SPATIAL)))

    def over_frames(self, x: Tensor, text: PackedText, rows: Tensor, frames: Tensor | None) -> Tensor:
        """The other branches on some positions of all frames. rows: gate, then shift, scale, gate of the MLP."""
        gate, shift_m, scale_m, gate_m = rows.unbind(0)
        branch = self.attn_temp(x if frames is None else x + frames, TEMPORAL)
        x = torch.addcmul(x, gate, self.drop_path(branch))
        x = x + self.cross_attn(x, text)
        return torch.addcmul(x, gate_m, self.drop_path(self.mlp(modulate(x, shift_m, scale_m))))


class STDiT(Network):
    """The network; see `forward`."""

    def __init__(self, config: STDiTConfig, options: STDiT1Options | None = None) -> None:
        super().__init__(config, reference_rounding=options is not None and options.reference_rounding)
        dim = config.hidden_size
        self.x_embedder = PatchEmbed(config.patch_size, config.in_channels, dim)
        self.t_embedder = ScalarEmbedder(dim)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.y_embedder = CaptionEmbedder(
            config.caption_channels, dim, max_tokens=config.model_max_length, drop_probability=config.class_dropout_prob
        )
        is_packed = options is None or options.cross_attention == "packed"
        self.blocks = Blocks(STDiTBlock(config, drop_path=rate, is_packed=is_packed) for rate in config.drop_rates())
        self.final_layer = FinalLayer(dim, math.prod(config.patch_size) * self.out_channels)
        initialize(self)

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        y: Tensor | PackedText,
        mask: Tensor | None = None,
        x_mask: Tensor | None = None,
        *,
        drop_ids: Tensor | None = None,
        **unused: Any,
    ) -> Tensor:
        """Predict the noise and, with `pred_sigma`, what its variance is read from.

        x: (B, C, T, H, W) noisy latents. timestep: (B,) in 0 .. 1000. y, mask, x_mask, drop_ids: as of
        STDiT3. Sizes and frame rates are accepted and not used. Returns (B, C or 2C, T, H, W) in float32.
        """
        dtype = self.x_embedder.proj.weight.dtype
        batch, _, *size = x.shape
        grid = self.grid(size)
        tokens = self.x_embedder(x.to(dtype)) + self.position_codes(grid, x.device).to(dtype)
        v = self.t_embedder(self.rounded(timestep))
        c = self.t_block(v)
        v0 = c0 = None
        if x_mask is not None:
            v0 = self.t_embedder(torch.zeros_like(timestep))
            c0 = self.t_block(v0)
        text = self.text_of(y, mask, drop_ids, batch)
        frames: Tensor | None = self.frame_codes(grid[0], x.device).to(dtype)
        for block in self.blocks:
            tokens = block(tokens, text, c, x_mask, c0, frames)
            frames = None  # only the first block sees them
        return self.unpatchify(self.final_tokens(tokens, v, x_mask, v0), grid, size)

    def position_codes(self, grid: list[int], device: torch.device) -> Tensor:
        """Codes (1, 1, S, D) of the positions in a frame."""
        _, rows, columns = grid
        config = self.config
        return self.table(
            ("position", rows, columns, device),
            lambda: position_table(
                config.hidden_size, rows, columns, scale=config.space_scale, base=None, device=device
            )[:, None],
        )

    def frame_codes(self, frames: int, device: torch.device) -> Tensor:
        """Codes (T, 1, D) of the frames."""
        config = self.config
        return self.table(
            ("frames", frames, device),
            lambda: frame_table(config.hidden_size, frames, scale=config.time_scale, device=device)[0][:, None],
        )


def initialize(network: Network) -> None:
    """Initial weights of the reference for STDiT and STDiT2: a network that starts with nothing but attention over
    positions and MLP in its blocks, and predicts zero."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    nn.init.xavier_uniform_(network.x_embedder.proj.weight.flatten(1).view(network.config.hidden_size, -1))
    small = ["t_embedder.mlp.0", "t_embedder.mlp.2", "t_block.1", "y_embedder.y_proj.fc1", "y_embedder.y_proj.fc2"]
    if hasattr(network, "t_block_temp"):
        small.append("t_block_temp.1")
    for name in small:
        nn.init.normal_(network.get_parameter(f"{name}.weight"), std=0.02)
    for name, module in network.named_modules():
        if name.endswith(("cross_attn.proj", "attn_temp.proj")) or name == "final_layer.linear":
            assert isinstance(module, nn.Linear)
            nn.init.zeros_(module.weight)


def with_options(config: Any, options: Any, names: tuple[str, ...]) -> Any:
    """The configuration with the fields that the user set as options."""
    given = {name: getattr(options, name) for name in names if options is not None}
    return replace(config, **{name: value for name, value in given.items() if value is not None})


def build(config: Mapping[str, Any], options: STDiT1Options | None = None) -> STDiT:
    """An STDiT from its sizes; used as the target of model specs."""
    return STDiT(with_options(STDiTConfig.from_mapping(config), options, ("space_scale", "time_scale")), options)
