"""The spatial autoencoder in slabs of rows, exact up to rounding, without gradients.

At the widest level only the input and the hidden features of one residual block exist. What norm and activation give
exists for some rows at a time; the second convolution of a block overwrites its own input from top to bottom; and the
doubled features before the last level of the decoder are computed again whenever they are needed. At 720p in bf16 that
is 450 MiB and a few slabs for decoding as for encoding, for a quarter more operations in decoding.

A norm needs sums over the whole picture first. They are exact however many slabs there are: within a slab the mean,
then the squared deviations from it, in float32 or wider, combined as in Chan, Golub and LeVeque (1979, "Updating
formulae and a pairwise algorithm for computing sample variances", eq. 2.1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .modes import SLAB_BYTES

if TYPE_CHECKING:
    from .model import Decoder, Downsample, Encoder, MiddleBlock, ResidualBlock

#: Rows of the attention matrix computed together: where no fused kernel takes this head width, two matrices of 2048 x
#: 14400 (720p) in float32 take 225 MiB, less than the widest level takes anyway.
QUERIES_AT_ONCE = 2048


class Source(Protocol):
    """Features (N, C, ..., H, W) whose rows can be had."""

    shape: torch.Size
    dtype: torch.dtype

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows start to stop, (N, C, ..., stop - start, W)."""
        ...


class Stored:
    """Features in memory. `write` overwrites them from top to bottom, while `rows` still gives what was there.

    Of what was overwritten one row is kept, since convolutions here reach one row.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.shape, self.dtype = tensor.shape, tensor.dtype
        self._written = 0
        self._kept: Tensor | None = None

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows as they were before anything was written, from one above the last written row on."""
        if self._kept is None or start >= self._written:
            return self.tensor[..., start:stop, :]
        return torch.cat([self._kept, self.tensor[..., self._written : stop, :]], dim=-2)

    def write(self, start: int, stop: int, values: Tensor) -> None:
        """Overwrite the next rows."""
        self._kept = self.tensor[..., stop - 1 : stop, :].clone()
        self.tensor[..., start:stop, :] = values
        self._written = stop


class Upsampled:
    """What `Upsample` gives of features (N, C, H / 2, W / 2), computed anew each time its rows are asked for."""

    def __init__(self, tensor: Tensor, conv: nn.Conv2d) -> None:
        self.tensor, self.conv = tensor, convolution(conv)
        batch, _, height, width = tensor.shape
        self.shape, self.dtype = torch.Size((batch, conv.out_channels, 2 * height, 2 * width)), tensor.dtype

    def rows(self, start: int, stop: int) -> Tensor:
        """Rows of the doubled and convolved features."""
        window = Window.around(start, stop, 1, self.shape[-2])
        top = window.start // 2
        doubled = F.interpolate(self.tensor[:, :, top : (window.stop + 1) // 2], scale_factor=2.0, mode="nearest")
        return self.conv.apply(doubled[:, :, window.start - 2 * top : window.stop - 2 * top], window)


class Window(NamedTuple):
    """Rows start to stop that exist, and the zero rows `above` and `below` that a convolution wants beyond them."""

    start: int
    stop: int
    above: int
    below: int

    @classmethod
    def around(cls, start: int, stop: int, halo: int, height: int) -> Window:
        """The rows needed for some rows of the output of a convolution that reaches `halo` rows."""
        above, below = max(0, halo - start), max(0, stop + halo - height)
        return cls(start - halo + above, stop + halo - below, above, below)


class RowConvolution(NamedTuple):
    """A convolution that leaves the number of rows as it is. apply: on the rows of a window; halo: rows it reaches."""

    apply: Callable[[Tensor, Window], Tensor]
    halo: int
    out_channels: int


class Residual(NamedTuple):
    """The parts of a residual block. activation: may work in place. shortcut: None where the width stays."""

    norm1: nn.GroupNorm
    conv1: RowConvolution
    norm2: nn.GroupNorm
    conv2: RowConvolution
    shortcut: RowConvolution | None
    activation: Callable[[Tensor], Tensor]


def silu(x: Tensor) -> Tensor:
    """In place."""
    return F.silu(x, inplace=True)


def convolution(conv: nn.Conv2d) -> RowConvolution:
    """A 2-D convolution of stride 1 that pads with zeros."""

    def apply(x: Tensor, window: Window) -> Tensor:
        if window.above or window.below:
            x = F.pad(x, (0, 0, window.above, window.below))
        return F.conv2d(x, conv.weight, conv.bias, padding=(0, conv.kernel_size[1] // 2))

    return RowConvolution(apply, conv.kernel_size[0] // 2, conv.out_channels)


# -- slabs of any features (N, C, ..., H, W) -----------------------------------------------------------------------


def row_bytes(x: Source, channels: int = 0) -> int:
    """Bytes of a row of these features, or of as many channels if those are more."""
    whole = math.prod(x.shape) // x.shape[1] * max(x.shape[1], channels)
    return whole // x.shape[-2] * x.dtype.itemsize


def slabs(height: int, bytes_of_a_row: int) -> Iterator[tuple[int, int]]:
    """First and last row (exclusive) of each slab of at most SLAB_BYTES, but of at least one row."""
    rows = max(1, SLAB_BYTES // bytes_of_a_row)
    for start in range(0, height, rows):
        yield start, min(start + rows, height)


def fill(height: int, bytes_of_a_row: int, rows: Callable[[int, int], Tensor]) -> Tensor:
    """Features of `height` rows out of slabs."""
    out: Tensor | None = None
    for start, stop in slabs(height, bytes_of_a_row):
        slab = rows(start, stop)
        if out is None:
            out = slab.new_empty(*slab.shape[:-2], height, slab.shape[-1])
        out[..., start:stop, :] = slab
    assert out is not None
    return out


class Affine(NamedTuple):
    """A norm whose statistics are known: x * scale + shift. Both (N, C, 1, ...), float32 or wider."""

    scale: Tensor
    shift: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """A new tensor like x, rounded once, as a fused norm rounds."""
        return (x * self.scale).add_(self.shift).to(x.dtype)


def statistics(norm: nn.GroupNorm, x: Source) -> Affine:
    """A group norm's scale and shift for these features; sums as said at the top."""
    batch, channels = x.shape[:2]
    wide = torch.promote_types(x.dtype, torch.float32)
    mean = squares = torch.zeros(())
    count = 0
    for start, stop in slabs(x.shape[-2], row_bytes(x)):
        values = x.rows(start, stop).to(wide).reshape(batch, norm.num_groups, -1)
        more = values.shape[2]
        slab_mean = values.mean(dim=2)
        slab_squares = (values - slab_mean[..., None]).square_().sum(dim=2)
        if count == 0:
            mean, squares = slab_mean, slab_squares
        else:
            apart = slab_mean - mean
            squares = squares + slab_squares + apart.square() * (count * more / (count + more))
            mean = mean + apart * (more / (count + more))
        count += more
    per_group = channels // norm.num_groups
    shape = (batch, channels, *[1] * (len(x.shape) - 2))
    deviation = (squares / count + norm.eps).rsqrt().repeat_interleave(per_group, dim=1)
    scale = deviation * norm.weight.to(wide)
    shift = norm.bias.to(wide) - mean.repeat_interleave(per_group, dim=1) * scale
    return Affine(scale.view(shape), shift.view(shape))


def convolved_rows(
    x: Source, conv: RowConvolution, start: int, stop: int, before: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Rows of a convolution of x, or of what `before` makes of x."""
    window = Window.around(start, stop, conv.halo, x.shape[-2])
    if before is None:
        return conv.apply(x.rows(window.start, window.stop), window)
    return conv.apply(before(x.rows(window.start, window.stop)), window)


def norm_and_convolve(
    x: Source, norm: nn.GroupNorm, activation: Callable[[Tensor], Tensor], conv: RowConvolution
) -> Tensor:
    """Norm, activation and convolution, (N, C_out, ..., H, W)."""
    affine = statistics(norm, x)
    return fill(
        x.shape[-2],
        row_bytes(x, conv.out_channels),
        lambda start, stop: convolved_rows(x, conv, start, stop, lambda rows: activation(affine.apply(rows))),
    )


def residual(block: Residual, x: Source) -> Tensor:
    """What a residual block gives, in the memory of its hidden features."""
    hidden = Stored(norm_and_convolve(x, block.norm1, block.activation, block.conv1))
    affine = statistics(block.norm2, hidden)

    def before(rows: Tensor) -> Tensor:
        return block.activation(affine.apply(rows))

    for start, stop in slabs(x.shape[-2], row_bytes(x, hidden.shape[1])):
        rows = convolved_rows(hidden, block.conv2, start, stop, before)
        rows += x.rows(start, stop) if block.shortcut is None else convolved_rows(x, block.shortcut, start, stop)
        hidden.write(start, stop, rows)
    return hidden.tensor


# -- the network ---------------------------------------------------------------------------------------------------


def _residual(block: ResidualBlock, x: Source) -> Stored:
    shortcut = convolution(block.conv_shortcut) if hasattr(block, "conv_shortcut") else None
    parts = Residual(
        block.norm1, convolution(block.conv1), block.norm2, convolution(block.conv2), shortcut, activation=silu
    )
    return Stored(residual(parts, x))


def _middle(block: MiddleBlock, x: Stored) -> Stored:
    first: Any = block.resnets[0]
    second: Any = block.resnets[1]
    x = _residual(first, x)
    x = Stored(block.attentions[0](x.tensor, queries_at_once=QUERIES_AT_ONCE))
    return _residual(second, x)


def _convolve(conv: nn.Conv2d, x: Source) -> Stored:
    made = convolution(conv)
    return Stored(
        fill(x.shape[-2], row_bytes(x, made.out_channels), lambda start, stop: convolved_rows(x, made, start, stop))
    )


def _downsample(sampler: Downsample, x: Stored) -> Stored:
    height = x.shape[-2]

    def rows(start: int, stop: int) -> Tensor:
        last = min(2 * stop + 1, height)
        # The zero row at the bottom and the zero column at the right of `Downsample`.
        return sampler.conv(F.pad(x.rows(2 * start, last), (0, 1, 0, 2 * stop + 1 - last)))

    return Stored(fill(height // 2, 2 * row_bytes(x), rows))


def encode(encoder: Encoder, pixels: Tensor) -> Tensor:
    """What the encoder gives: pixels (N, 3, H, W) -> (N, 2 C, h, w)."""
    level: Any  # nn.ModuleList does not say what it holds
    x = _convolve(encoder.conv_in, Stored(pixels))
    for level in encoder.down_blocks:
        for block in level.resnets:
            x = _residual(block, x)
        if level.sampler is not None:
            x = _downsample(level.get_submodule(f"{level.sampler}.0"), x)
    x = _middle(encoder.mid_block, x)
    return norm_and_convolve(x, encoder.conv_norm_out, silu, convolution(encoder.conv_out))


def decode(decoder: Decoder, z: Tensor) -> Tensor:
    """What the decoder gives: latents (N, C, h, w) -> (N, 3, H, W)."""
    level: Any  # nn.ModuleList does not say what it holds
    x: Source = _middle(decoder.mid_block, _convolve(decoder.conv_in, Stored(z)))
    last = len(decoder.up_blocks) - 1
    for index, level in enumerate(decoder.up_blocks):
        for block in level.resnets:
            x = _residual(block, x)
        if level.sampler is not None:
            assert isinstance(x, Stored)
            x = Upsampled(x.tensor, level.get_submodule(f"{level.sampler}.0").conv)
            if index + 1 < last:  # levels before the last one are small enough to keep
                x = Stored(fill(x.shape[-2], row_bytes(x), x.rows))
    return norm_and_convolve(x, decoder.conv_norm_out, silu, convolution(decoder.conv_out))
