"""What the networks of the STDiT family share beside their layers: pieces, text, tables and patches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .config import NetworkConfig
from .layers import CaptionEmbedder, FinalLayer, PackedText, PatchEmbed, RotaryEmbedding, position_table

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


def in_pieces(
    x: Tensor,
    text: PackedText,
    rows: Tensor,
    transform: Callable[[Tensor, PackedText, Tensor], Tensor],
    *,
    axis: int,
    tokens_at_once: int | None = None,
    overwrites: bool = False,
) -> Tensor:
    """transform(x, text, rows) for x (B, T, S, D), piece by piece unless gradients are recorded.

    rows: (n, B, T or 1, 1, D) of these samples and frames. tokens_at_once: None for the device's own. overwrites: x may
    be written over, which spares the memory of another one.
    """
    if torch.is_grad_enabled():
        return transform(x, text, rows)
    batch, frames, positions, _ = x.shape
    cuts = list(pieces(batch, frames, positions, axis=axis, tokens_at_once=tokens_at_once or usual_tokens(x.device)))
    if len(cuts) == 1:
        return transform(x, text, rows)
    out = x if overwrites else torch.empty_like(x)
    for cut in cuts:
        samples, part, _ = cut
        # Rows that are the same for all frames serve every piece of them.
        own = rows[:, samples, part if rows.shape[2] > 1 else slice(None)]
        out[cut] = transform(x[cut], text[samples], own)
    return out


def modulation_rows(table: Tensor, c: Tensor, x_mask: Tensor | None, c0: Tensor | None) -> Tensor:
    """Shifts, scales and gates (n, B, T or 1, 1, D) of a block: its table (n, D) plus c (B, n D) of the timestep.

    x_mask (B, T): False for frames that are given, which take c0 (B, n D) of timestep 0.
    """
    rows = (table + c.view(len(c), len(table), -1))[:, None]
    if x_mask is not None and c0 is not None:
        rows0 = (table + c0.view(len(c0), len(table), -1))[:, None]
        rows = torch.where(x_mask[:, :, None, None], rows, rows0)
    return rows[:, :, :, None].movedim(2, 0)


class Network(nn.Module):
    """The base of the networks; they make the parts that are named here, in the order of their checkpoints."""

    config: Any
    reference_rounding: bool
    out_channels: int
    x_embedder: PatchEmbed
    y_embedder: CaptionEmbedder
    final_layer: FinalLayer
    rope: RotaryEmbedding

    def __init__(self, config: NetworkConfig, *, reference_rounding: bool = False) -> None:
        super().__init__()
        self.config = config
        self.reference_rounding = reference_rounding
        self.out_channels = config.in_channels * (2 if config.pred_sigma else 1)
        self._tables: dict[tuple[Any, ...], Any] = {}
        self._read_sizes: tuple[Tensor, Tensor, float] | None = None

    def text_of(self, y: Tensor | PackedText, mask: Tensor | None, drop_ids: Tensor | None, batch: int) -> PackedText:
        """The packed text of a call of `batch` rows; see `forward` of the networks."""
        if not isinstance(y, PackedText):
            y = self.pack_text(y, mask, self.y_embedder.draw_drop_ids(len(y)) if drop_ids is None else drop_ids)
        if len(y.lengths) != batch:
            raise ValueError(f"{len(y.lengths)} captions for a batch of {batch}")
        return y

    def grid(self, size: Sequence[int]) -> list[int]:
        """Patches along T, H and W of latents of this size."""
        return [-(-extent // patch) for extent, patch in zip(size, self.config.patch_size, strict=True)]

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
        """Project y (B, 1, L, C_text) and keep the tokens where mask (b, L) is 1; b must divide B and is tiled."""
        projected = self.y_embedder(y.to(self.x_embedder.proj.weight.dtype), drop_ids).squeeze(1)
        batch, length, _ = projected.shape
        if mask is None:
            return PackedText(projected.reshape(1, batch * length, -1), [length] * batch)
        if batch % len(mask):
            raise ValueError(f"a text mask of {len(mask)} rows does not tile to a batch of {batch}")
        mask = mask.repeat(batch // len(mask), 1) != 0
        return PackedText(projected[mask][None], mask.sum(dim=1).tolist())

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
