"""The temporal autoencoder of Open-Sora 1.2: causal 3-D convolutions over latents of single frames.

It never changes height and width. The convolutions are causal, the norms average over all frames of a piece. Parameter
names are those of the released checkpoint. Without gradients activations and residual sums are written in place, and
loops over blocks stand in the function that owns the features: a caller's name would keep a level's input alive.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sora_plugins.sd_vae.gaussian import DiagonalGaussian
from sora_plugins.sd_vae.model import add, silu

from . import slabs
from .config import TemporalConfig

Activation = Callable[[Tensor], Tensor]


def relu(x: Tensor) -> Tensor:
    """max(x, 0), in place where no gradient is needed."""
    return F.relu(x, inplace=not torch.is_grad_enabled())


ACTIVATIONS: dict[str, Activation] = {"swish": silu, "relu": relu}


class CausalConv3d(nn.Module):
    """A 3-D convolution that sees no later frame: padding in time is in front only.

    dilation: of the time axis. pad_mode: as in torch.nn.functional.pad. strides: of the three axes, wins over
    time_stride.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int, int],
        *,
        pad_mode: str = "constant",
        time_stride: int = 1,
        dilation: int = 1,
        strides: tuple[int, int, int] | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        kernel = (kernel_size,) * 3 if isinstance(kernel_size, int) else kernel_size
        if kernel[1] % 2 == 0 or kernel[2] % 2 == 0:
            raise ValueError(f"kernel {kernel}: height and width must be odd")
        stride = strides or (time_stride, 1, 1)
        front = dilation * (kernel[0] - 1) + (1 - stride[0])
        self.pad_mode = pad_mode
        self.padding = (kernel[2] // 2, kernel[2] // 2, kernel[1] // 2, kernel[1] // 2, front, 0)
        # Zeros at the sides are added by the convolution itself, which needs no padded copy for them.
        sides = (0, kernel[1] // 2, kernel[2] // 2) if pad_mode == "constant" else (0, 0, 0)
        self.conv = nn.Conv3d(
            in_channels, out_channels, kernel, stride=stride, padding=sides, dilation=(dilation, 1, 1), bias=bias
        )

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, T, H, W) -> (B, C_out, T', H', W')."""
        if self.pad_mode != "constant":
            return self.conv(F.pad(x, self.padding, mode=self.pad_mode))
        front = self.padding[4]
        return self.conv(F.pad(x, (0, 0, 0, 0, front, 0)) if front > 0 else x)


class TemporalResidualBlock(nn.Module):
    """Norm, activation, causal convolution, twice, plus the input (convolved when the width changes); no biases."""

    def __init__(
        self, in_channels: int, out_channels: int, *, groups: int, activation: Activation, wide_shortcut: bool = False
    ) -> None:
        super().__init__()
        self.activation = activation
        self.norm1 = nn.GroupNorm(groups, in_channels)
        self.conv1 = CausalConv3d(in_channels, out_channels, 3, bias=False)
        self.norm2 = nn.GroupNorm(groups, out_channels)
        self.conv2 = CausalConv3d(out_channels, out_channels, 3, bias=False)
        if in_channels != out_channels:
            self.conv3 = CausalConv3d(in_channels, out_channels, 3 if wide_shortcut else 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, T, H, W) -> (B, C_out, T, H, W)."""
        h = self.conv1(self.activation(self.norm1(x)))
        h = self.activation(self.norm2(h))  # in a line of its own, so that what came in is freed before the convolution
        h = self.conv2(h)
        return add(h, self.conv3(x) if hasattr(self, "conv3") else x)


def depth_to_space_time(x: Tensor, times: int, rows: int = 1, columns: int = 1) -> Tensor:
    """Move channels (C * times * rows * columns, C slowest) into frames, rows and columns."""
    x = x.unflatten(1, (-1, times, rows, columns))
    x = x.permute(0, 1, 5, 2, 6, 3, 7, 4)
    return x.flatten(2, 3).flatten(3, 4).flatten(4, 5)


class TemporalEncoder(nn.Module):
    """Latents of frames to moments of fewer frames."""

    def __init__(self, config: TemporalConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation_fn]
        widths = [config.filters * factor for factor in config.channel_multipliers]
        self.conv_in = CausalConv3d(config.in_out_channels, config.filters, 3, bias=False)
        blocks, resamplers, before = [], [], config.filters
        for index, width in enumerate(widths):
            blocks.append(_blocks(config, before, width))
            before = width
            if index < len(widths) - 1:
                halves = config.temporal_downsample[index]
                resamplers.append(CausalConv3d(width, width, 3, time_stride=2) if halves else nn.Identity())
        self.block_res_blocks = nn.ModuleList(blocks)
        self.conv_blocks = nn.ModuleList(resamplers)
        self.halves = config.temporal_downsample
        self.res_blocks = _blocks(config, before, before)
        self.norm1 = nn.GroupNorm(config.num_groups, before)
        self.conv2 = CausalConv3d(before, 2 * config.latent_embed_dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, T, h, w), T a multiple of the time factor -> (B, 2 C_latent, T / factor, h, w)."""
        x = self.conv_in(x)
        for index, blocks in enumerate(self.block_res_blocks):
            for block in blocks.children():
                x = block(x)
            if index < len(self.conv_blocks):
                x = self.conv_blocks[index](x)
        for block in self.res_blocks:
            x = block(x)
        return self.conv2(self.activation(self.norm1(x)))


class TemporalDecoder(nn.Module):
    """Latents to latents of all frames. `block_res_blocks` and `conv_blocks` count from the level with most frames."""

    def __init__(self, config: TemporalConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation_fn]
        widths = [config.filters * factor for factor in config.channel_multipliers]
        last = widths[-1]
        self.conv1 = CausalConv3d(config.latent_embed_dim, last, 3)
        self.res_blocks = _blocks(config, last, last)
        inputs = [*widths[1:], last]
        self.block_res_blocks = nn.ModuleList(
            _blocks(config, before, width) for before, width in zip(inputs, widths, strict=True)
        )
        self.conv_blocks = nn.ModuleList(
            CausalConv3d(width, 2 * width, 3) if doubles else nn.Identity()
            for width, doubles in zip(widths[1:], config.temporal_downsample, strict=True)
        )
        self.doubles = config.temporal_downsample
        self.norm1 = nn.GroupNorm(config.num_groups, widths[0])
        self.conv_out = CausalConv3d(widths[0], config.in_out_channels, 3)

    def forward(self, z: Tensor) -> Tensor:
        """z (B, C_latent, L, h, w) -> (B, C, L * factor, h, w)."""
        x = self.conv1(z)
        for block in self.res_blocks:
            x = block(x)
        for index in reversed(range(len(self.block_res_blocks))):
            for block in self.block_res_blocks[index].children():
                x = block(x)
            if index > 0:
                x = self.conv_blocks[index - 1](x)
                if self.doubles[index - 1]:
                    x = depth_to_space_time(x, 2)
        return self.conv_out(self.activation(self.norm1(x)))


class TemporalAutoencoder(nn.Module):
    """Latents of frames (B, C, T, h, w) to and from latents with fewer frames (B, C_latent, ceil(T / factor), h, w).

    uses_slabs: compute in slabs of rows where no gradients are enabled, exact up to rounding, in half the memory.
    """

    def __init__(self, config: TemporalConfig | None = None) -> None:
        super().__init__()
        self.config = config or TemporalConfig()
        self.uses_slabs = False
        self.encoder = TemporalEncoder(self.config)
        self.decoder = TemporalDecoder(self.config)
        self.quant_conv = CausalConv3d(2 * self.config.latent_embed_dim, 2 * self.config.embed_dim, 1)
        self.post_quant_conv = CausalConv3d(self.config.embed_dim, self.config.latent_embed_dim, 1)

    def encode(self, x: Tensor) -> DiagonalGaussian:
        """The posterior. Frames are padded in front with zeros to a multiple of the time factor."""
        missing = -x.shape[2] % self.config.time_factor
        padded = F.pad(x, (0, 0, 0, 0, missing, 0)) if missing else x
        moments = slabs.encode(self.encoder, padded) if self._in_slabs() else self.encoder(padded)
        return DiagonalGaussian(self.quant_conv(moments).to(x.dtype))

    def decode(self, z: Tensor, num_frames: int | None = None) -> Tensor:
        """Latents of frames; the first -num_frames mod factor frames, which code the padding, are dropped.

        num_frames: None keeps all. That it fits the latents is checked by the caller, who knows the pieces.
        """
        z = self.post_quant_conv(z)
        x = slabs.decode(self.decoder, z) if self._in_slabs() else self.decoder(z)
        missing = 0 if num_frames is None else -num_frames % self.config.time_factor
        return x[:, :, missing:]

    def _in_slabs(self) -> bool:
        return self.uses_slabs and not torch.is_grad_enabled()

    def get_latent_size(self, size: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(T, h, w) of the latents of (T, h, w); None stays None."""
        frames, *rest = size
        return (None if frames is None else -(-frames // self.config.time_factor), *rest)

    def forward(self, x: Tensor, sample: bool = True) -> tuple[Tensor, DiagonalGaussian, Tensor]:
        """Reconstruction, posterior and latents of x."""
        posterior = self.encode(x)
        z = posterior.sample() if sample else posterior.mode()
        return self.decode(z, x.shape[2]), posterior, z


def _blocks(config: TemporalConfig, in_channels: int, out_channels: int) -> nn.ModuleList:
    activation = ACTIVATIONS[config.activation_fn]
    inputs = [in_channels] + [out_channels] * (config.num_res_blocks - 1)
    return nn.ModuleList(
        TemporalResidualBlock(channels, out_channels, groups=config.num_groups, activation=activation)
        for channels in inputs
    )
