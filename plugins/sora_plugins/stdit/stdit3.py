"""STDiT3, the network of Open-Sora 1.2: alternating spatial and temporal transformer blocks.

x (B, C, T, H, W) is cut into patches; features stay (B, T, S, D) through all blocks. One device, plain torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
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
    position_table,
)

if TYPE_CHECKING:
    from .options import STDiTOptions

SPATIAL, TEMPORAL = 2, 1  # the axis of (B, T, S, D) that a block attends over

#: Tokens that go through a block together when no gradients are needed. Frames do not see each other in a spatial
#: block, nor positions in a temporal one, so pieces change nothing but the memory: beside the features before and after
#: a block there are only the intermediates of one piece. A GPU needs large products to reach its full rate; on a CPU
#: pieces that fit into its caches are up to a quarter faster (features of 1152 channels, bfloat16).
TOKENS_AT_ONCE = 32768
CPU_TOKENS_AT_ONCE = 2048
#: Position and rotary tables kept at a time; a table of positions at 720p takes 16 MiB.
MAX_TABLES = 8

Piece = tuple[slice, slice, slice]


def pieces(batch: int, frames: int, positions: int, *, axis: int, tokens_at_once: int) -> Iterator[Piece]:
    """Cut (B, T, S) into pieces of at most `tokens_at_once` tokens, or of one sequence along `axis` if that is longer.

    Small batches are one piece; a piece of a larger one belongs to a single sample.
    """
    every = slice(None)
    if batch * frames * positions <= tokens_at_once:
        yield every, every, every
        return
    count, length = (frames, positions) if axis == SPATIAL else (positions, frames)
    step = max(1, tokens_at_once // length)
    for row in range(batch):
        for start in range(0, count, step):
            part = slice(start, min(start + step, count))
            yield (slice(row, row + 1), part, every) if axis == SPATIAL else (slice(row, row + 1), every, part)


def usual_tokens(device: torch.device) -> int:
    """Tokens at once on a device."""
    return CPU_TOKENS_AT_ONCE if device.type == "cpu" else TOKENS_AT_ONCE


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

    def modulation(self, c: Tensor, x_mask: Tensor | None, c0: Tensor | None) -> Tensor:
        """(6, B, T or 1, 1, D): shift, scale, gate of the attention, then of the MLP.

        c, c0: (B, 6 D) from the timestep and from timestep 0; x_mask (B, T) True for frames to generate.
        """
        rows = (self.scale_shift_table + c.view(len(c), 6, -1))[:, None]
        if x_mask is not None and c0 is not None:
            rows0 = (self.scale_shift_table + c0.view(len(c0), 6, -1))[:, None]
            rows = torch.where(x_mask[:, :, None, None], rows, rows0)
        return rows[:, :, :, None].movedim(2, 0)

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
        rows = self.modulation(c, x_mask, c0)
        if self.axis == SPATIAL:
            rope = None
        if torch.is_grad_enabled():
            return self.transform(x, text, rows, rope)
        batch, frames, positions, _ = x.shape
        tokens_at_once = self.tokens_at_once or usual_tokens(x.device)
        cuts = list(pieces(batch, frames, positions, axis=self.axis, tokens_at_once=tokens_at_once))
        if len(cuts) == 1:
            return self.transform(x, text, rows, rope)
        out = torch.empty_like(x)
        for cut in cuts:
            samples, part, _ = cut
            # Rows that are the same for all frames serve every piece of them.
            own = rows[:, samples, part if rows.shape[2] > 1 else slice(None)]
            out[cut] = self.transform(x[cut], text[samples], own, rope)
        return out

    def transform(self, x: Tensor, text: PackedText, rows: Tensor, rope: tuple[Tensor, Tensor] | None) -> Tensor:
        """The block on x (B, T, S, D), whole along its axis. rows: of these samples and frames, from `modulation`."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = rows.unbind(0)
        branch = self.attn(modulate(x, shift_a, scale_a), self.axis, rope)
        x = torch.addcmul(x, gate_a, self.drop_path(branch))
        x = x + self.cross_attn(x, text)
        branch = self.mlp(modulate(x, shift_m, scale_m))
        return torch.addcmul(x, gate_m, self.drop_path(branch))


class STDiT3(nn.Module):
    """The network; see `forward`."""

    def __init__(self, config: STDiT3Config, options: STDiTOptions | None = None) -> None:
        super().__init__()
        self.config = config
        self.reference_rounding = options is not None and options.reference_rounding
        dim = config.hidden_size
        self.out_channels = config.in_channels * (2 if config.pred_sigma else 1)
        self.rope = RotaryEmbedding(dim // config.num_heads)
        self.x_embedder = PatchEmbed(config.patch_size, config.in_channels, dim)
        self.t_embedder = ScalarEmbedder(dim)
        self.fps_embedder = SizeEmbedder(dim)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.y_embedder = CaptionEmbedder(
            config.caption_channels, dim, max_tokens=config.model_max_length, drop_probability=config.class_dropout_prob
        )
        last = max(config.depth - 1, 1)
        rates = [config.drop_path * index / last for index in range(config.depth)]
        is_packed = options is None or options.cross_attention == "packed"
        self.spatial_blocks, self.temporal_blocks = (
            nn.ModuleList(STDiT3Block(config, axis=axis, drop_path=rate, is_packed=is_packed) for rate in rates)
            for axis in (SPATIAL, TEMPORAL)
        )
        self.final_layer = FinalLayer(dim, math.prod(config.patch_size) * self.out_channels)
        self._tables: dict[tuple[Any, ...], Any] = {}
        self._read_sizes: tuple[Tensor, Tensor, float] | None = None
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

    def null_text(self, num_prompts: int, length: int) -> Tensor:
        """The learned embedding of "no text", (num_prompts, 1, length, C_text), its first `length` rows.

        Where the table has fewer, its last row is repeated.
        """
        table = self.y_embedder.y_embedding
        rows = torch.arange(length, device=table.device).clamp(max=len(table) - 1)
        return table[rows][None, None].expand(num_prompts, -1, -1, -1)

    def encode_text(self, y: Tensor, mask: Tensor | None = None) -> PackedText:
        """Text for many calls: given as `y` it is projected once, not at each step. Rows and mask as in `forward`."""
        text = self.pack_text(y, mask)
        return PackedText(text.tokens, text.lengths, is_reused=True)

    def pack_text(self, y: Tensor, mask: Tensor | None = None, drop_ids: Tensor | None = None) -> PackedText:
        """Project y (B, 1, L, C_text) and keep the tokens where mask (b, L) is 1; b must divide B and is tiled.

        With `skip_y_embedder` y is projected and packed already, (1, sum of lengths, D), and mask holds the lengths.
        """
        y = y.to(self.x_embedder.proj.weight.dtype)
        if self.config.skip_y_embedder:
            if mask is None:
                raise ValueError("packed text needs the lengths of its captions as mask")
            return PackedText(y, [int(length) for length in mask])
        projected = self.y_embedder(y, drop_ids).squeeze(1)
        batch, length, _ = projected.shape
        if mask is None:
            return PackedText(projected.reshape(1, batch * length, -1), [length] * batch)
        if batch % len(mask):
            raise ValueError(f"a text mask of {len(mask)} rows does not tile to a batch of {batch}")
        mask = mask.repeat(batch // len(mask), 1) != 0
        return PackedText(projected[mask][None], mask.sum(dim=1).tolist())

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
        grid = [-(-extent // patch) for extent, patch in zip(size, self.config.patch_size, strict=True)]
        tokens = tokens + self.position_table(grid, height, width, x.device).to(dtype)

        fps_vector = self.fps_embedder(self.rounded(fps), batch)
        v = self.t_embedder(self.rounded(timestep)) + fps_vector
        c = self.t_block(v)
        v0 = c0 = None
        if x_mask is not None:
            v0 = self.t_embedder(torch.zeros_like(timestep)) + fps_vector
            c0 = self.t_block(v0)
        if isinstance(y, PackedText):
            text = y
        else:
            text = self.pack_text(y, mask, self.y_embedder.draw_drop_ids(len(y)) if drop_ids is None else drop_ids)
        if len(text.lengths) != batch:
            raise ValueError(f"{len(text.lengths)} captions for a batch of {batch}")
        rope = self.rotary_tables(grid[0], x.device)
        for spatial, temporal in zip(self.spatial_blocks, self.temporal_blocks, strict=True):
            tokens = spatial(tokens, text, c, x_mask, c0)
            tokens = temporal(tokens, text, c, x_mask, c0, rope)
        return self.unpatchify(self.final_tokens(tokens, v, x_mask, v0), grid, size)

    def final_tokens(self, tokens: Tensor, v: Tensor, x_mask: Tensor | None, v0: Tensor | None) -> Tensor:
        """The final layer, frame by frame where the blocks go piece by piece: (B, T, S, D) -> (B, T, S, out)."""
        batch, frames, positions, _ = tokens.shape
        if torch.is_grad_enabled() or batch * frames * positions <= usual_tokens(tokens.device):
            return self.final_layer(tokens, v, x_mask, v0)
        masks = [None] * frames if x_mask is None else x_mask.split(1, dim=1)
        parts = zip(tokens.split(1, dim=1), masks, strict=True)
        return torch.cat([self.final_layer(part, v, mask, v0) for part, mask in parts], dim=1)

    def rounded(self, values: Tensor) -> Tensor:
        """Float32, through bfloat16 with reference rounding."""
        return values.bfloat16().float() if self.reference_rounding else values.float()

    def table(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        """What `make` returns, kept by key: the steps of a clip share their tables. A few clip sizes are kept."""
        if key not in self._tables:
            if len(self._tables) >= MAX_TABLES:
                self._tables.clear()
            self._tables[key] = make()
        return self._tables[key]

    def rotary_tables(self, frames: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Cosine and sine (frames, head width) for the temporal blocks."""
        rounding = self.reference_rounding
        return self.table(
            ("rotary", frames, device), lambda: self.rope.tables(frames, device, reference_rounding=rounding)
        )

    def pixel_area(self, height: Tensor, width: Tensor) -> float:
        """Area of the first sample in pixels. Read once for a pair of tensors, because reading stops the device and a
        sampler gives the same ones at every step."""
        known = self._read_sizes
        if known is None or known[0] is not height or known[1] is not width:
            area = float(self.rounded(height[:1])) * float(self.rounded(width[:1]))
            self._read_sizes = known = height, width, area
        return known[2]

    def position_table(self, grid: list[int], height: Tensor, width: Tensor, device: torch.device) -> Tensor:
        """Position code (1, 1, S, D), scaled by the first sample's size in pixels."""
        area = self.pixel_area(height, width)
        _, rows, columns = grid

        def make() -> Tensor:
            return position_table(
                self.config.hidden_size,
                rows,
                columns,
                scale=area**0.5 / self.config.input_sq_size,
                base=round((rows * columns) ** 0.5),
                device=device,
                reference_rounding=self.reference_rounding,
            )[:, None]

        return self.table(("position", rows, columns, area, device), make)

    def unpatchify(self, tokens: Tensor, grid: list[int], size: list[int]) -> Tensor:
        """Patches (B, t, h * w, P * C_out), C_out fastest -> (B, C_out, T, H, W), padding cut off, float32."""
        t, h, w = grid
        patch = self.config.patch_size
        x = tokens.view(len(tokens), t, h, w, *patch, self.out_channels)
        x = x.permute(0, 7, 1, 4, 2, 5, 3, 6).reshape(
            len(tokens), self.out_channels, t * patch[0], h * patch[1], w * patch[2]
        )
        return x[:, :, : size[0], : size[1], : size[2]].float()


def build(config: Mapping[str, Any], options: STDiTOptions | None = None) -> STDiT3:
    """An STDiT3 from the fields of a config.json; used as the target of model specs."""
    return STDiT3(STDiT3Config.from_mapping(config), options)
