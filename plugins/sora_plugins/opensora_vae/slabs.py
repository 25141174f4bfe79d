"""The temporal autoencoder in slabs of rows, exact up to rounding, without gradients.

A slab has all frames of a piece, so that the causal convolutions and the norms over all frames stay as they are, and
some rows of latents. Nothing but slabs is padded, and the second convolution of a block overwrites its input, so the
peak is two tensors: 281 MiB and a few slabs for a piece at 720p in bf16, instead of 583. How slabs work is in
sd_vae/slabs.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.nn import functional as F

from sora_plugins.sd_vae.slabs import (
    Residual,
    RowConvolution,
    Stored,
    Window,
    convolved_rows,
    fill,
    norm_and_convolve,
    residual,
    row_bytes,
)

if TYPE_CHECKING:
    from .temporal import CausalConv3d, TemporalDecoder, TemporalEncoder, TemporalResidualBlock


def causal_convolution(conv: CausalConv3d) -> RowConvolution:
    """A causal convolution that pads with zeros and leaves the rows as many as they are."""
    inner, front = conv.conv, max(0, conv.padding[4])

    def apply(x: Tensor, window: Window) -> Tensor:
        if front or window.above or window.below:
            x = F.pad(x, (0, 0, window.above, window.below, front, 0))
        padding = (0, 0, inner.kernel_size[2] // 2)
        return F.conv3d(x, inner.weight, inner.bias, inner.stride, padding, inner.dilation)

    return RowConvolution(apply, inner.kernel_size[1] // 2, inner.out_channels)


def _residual(block: TemporalResidualBlock, x: Stored) -> Stored:
    parts = Residual(
        block.norm1,
        causal_convolution(block.conv1),
        block.norm2,
        causal_convolution(block.conv2),
        causal_convolution(block.conv3) if hasattr(block, "conv3") else None,
        block.activation,
    )
    return Stored(residual(parts, x))


def _convolve(conv: CausalConv3d, x: Stored, *, doubles: bool = False) -> Stored:
    """A convolution; doubles: half of its channels become frames."""
    from .temporal import depth_to_space_time

    made = causal_convolution(conv)

    def rows(start: int, stop: int) -> Tensor:
        out = convolved_rows(x, made, start, stop)
        return depth_to_space_time(out, 2) if doubles else out

    return Stored(fill(x.shape[-2], row_bytes(x, made.out_channels), rows))


def encode(encoder: TemporalEncoder, x: Tensor) -> Tensor:
    """What the encoder gives: (B, C, T, h, w), T a multiple of the time factor -> (B, 2 C_latent, T / factor, h, w)."""
    blocks: Any  # nn.ModuleList does not say what it holds
    block: Any
    resampler: Any
    features = _convolve(encoder.conv_in, Stored(x))
    for index, blocks in enumerate(encoder.block_res_blocks):
        for block in blocks:
            features = _residual(block, features)
        if index < len(encoder.conv_blocks) and encoder.halves[index]:
            resampler = encoder.conv_blocks[index]
            features = _convolve(resampler, features)
    for block in encoder.res_blocks:
        features = _residual(block, features)
    return norm_and_convolve(features, encoder.norm1, encoder.activation, causal_convolution(encoder.conv2))


def decode(decoder: TemporalDecoder, z: Tensor) -> Tensor:
    """What the decoder gives: (B, C_latent, L, h, w) -> (B, C, L * factor, h, w)."""
    block: Any  # nn.ModuleList does not say what it holds
    resampler: Any
    features = _convolve(decoder.conv1, Stored(z))
    for block in decoder.res_blocks:
        features = _residual(block, features)
    for index in reversed(range(len(decoder.block_res_blocks))):
        for block in decoder.block_res_blocks[index].children():
            features = _residual(block, features)
        if index > 0 and decoder.doubles[index - 1]:
            resampler = decoder.conv_blocks[index - 1]
            features = _convolve(resampler, features, doubles=True)
    return norm_and_convolve(features, decoder.norm1, decoder.activation, causal_convolution(decoder.conv_out))
