"""The spatial autoencoder (Rombach et al. 2022, arXiv 2112.10752) and its use on videos, frame by frame.

Parameter names are those of the released checkpoints. Without gradients activations and residual sums are written in
place, so that the peak of decoding a frame is the residual, its norm and one convolution at the widest full-size level.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sora_cli.plugin.protocols import Reconstruction

from . import slabs, tiles
from .config import SpatialConfig
from .gaussian import DiagonalGaussian
from .modes import OVERLAP, TILE, MemoryMode

NORM_EPS = 1e-6
#: Rows of the attention matrix computed together: fused kernels for this head width are not everywhere, and the whole
#: matrix of a 720p frame would take 800 MiB.
QUERIES_AT_ONCE = 4096
#: Pixels decoded together unless asked otherwise: those of one 720p frame, so that small frames go several at a time.
PIXELS_AT_ONCE = 720 * 1280


def silu(x: Tensor) -> Tensor:
    """x * sigmoid(x), in place where no gradient is needed."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


def add(x: Tensor, y: Tensor) -> Tensor:
    """x + y, in the memory of x where no gradient is needed."""
    return x + y if torch.is_grad_enabled() else x.add_(y)


class ResidualBlock(nn.Module):
    """Norm, SiLU, 3 x 3 convolution, twice, plus the input (through a 1 x 1 convolution when the width changes)."""

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels, eps=NORM_EPS)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps=NORM_EPS)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        if in_channels != out_channels:
            self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, H, W) -> (N, C_out, H, W)."""
        h = self.conv1(silu(self.norm1(x)))
        h = self.conv2(silu(self.norm2(h)))
        return add(h, self.conv_shortcut(x) if hasattr(self, "conv_shortcut") else x)


class Attention(nn.Module):
    """Single-head attention over the positions of each frame."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, channels, eps=NORM_EPS)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor, queries_at_once: int | None = None) -> Tensor:
        """x (N, C, H, W) -> same shape. queries_at_once: None for QUERIES_AT_ONCE."""
        tokens = self.group_norm(x).flatten(2).transpose(1, 2)
        k, v = self.to_k(tokens)[:, None], self.to_v(tokens)[:, None]
        queries = self.to_q(tokens)[:, None].split(queries_at_once or QUERIES_AT_ONCE, dim=2)
        out = torch.cat([F.scaled_dot_product_attention(q, k, v) for q in queries], dim=2)[:, 0]
        return self.to_out[0](out).transpose(1, 2).reshape(x.shape) + x


class Downsample(nn.Module):
    """Halves the sides, rounding down: one zero row and column at the right and bottom, then stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, H, W) -> (N, C, H // 2, W // 2)."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Doubles the sides: nearest neighbour, then a 3 x 3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, H, W) -> (N, C, 2 H, 2 W)."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """Residual blocks of one resolution, then a change of resolution except at the last level."""

    def __init__(self, blocks: list[nn.Module], sampler: tuple[str, nn.Module] | None) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(blocks)
        self.sampler = None if sampler is None else sampler[0]
        if sampler is not None:
            self.add_module(sampler[0], nn.ModuleList([sampler[1]]))

    def forward(self, x: Tensor, *extra: Any) -> Tensor:
        """x (N, C, H, W) -> (N, C_out, H', W'). extra: handed to the residual blocks."""
        for block in self.resnets:
            x = block(x, *extra)
        return x if self.sampler is None else self.get_submodule(f"{self.sampler}.0")(x)


class MiddleBlock(nn.Module):
    """Residual block, attention, residual block."""

    def __init__(self, blocks: list[nn.Module], channels: int, groups: int) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([Attention(channels, groups)])
        self.resnets = nn.ModuleList(blocks)

    def forward(self, x: Tensor, *extra: Any) -> Tensor:
        """x (N, C, H, W) -> same shape. Blocks beyond the second exist in some checkpoints and are never run."""
        x = self.resnets[0](x, *extra)
        for attention, block in zip(self.attentions, self.resnets[1:], strict=False):
            x = block(attention(x), *extra)
        return x


class Encoder(nn.Module):
    """Pixels to moments."""

    def __init__(self, config: SpatialConfig) -> None:
        super().__init__()
        widths, groups = config.block_out_channels, config.norm_num_groups
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        levels = []
        for index, width in enumerate(widths):
            before = widths[max(index - 1, 0)]
            inputs = [before] + [width] * (config.layers_per_block - 1)
            sampler = ("downsamplers", Downsample(width)) if index < len(widths) - 1 else None
            levels.append(Level([ResidualBlock(channels, width, groups) for channels in inputs], sampler))
        self.down_blocks = nn.ModuleList(levels)
        last = widths[-1]
        self.mid_block = MiddleBlock([ResidualBlock(last, last, groups) for _ in range(2)], last, groups)
        self.conv_norm_out = nn.GroupNorm(groups, last, eps=NORM_EPS)
        self.conv_out = nn.Conv2d(last, 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, 3, H, W) -> (N, 2 C, h, w)."""
        x = self.conv_in(x)
        for level in self.down_blocks:
            x = level(x)
        x = self.mid_block(x)
        return self.conv_out(silu(self.conv_norm_out(x)))


class Decoder(nn.Module):
    """Latents to pixels; no non-linearity at the end."""

    def __init__(self, config: SpatialConfig) -> None:
        super().__init__()
        widths, groups = config.block_out_channels[::-1], config.norm_num_groups
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.mid_block = MiddleBlock([ResidualBlock(widths[0], widths[0], groups) for _ in range(2)], widths[0], groups)
        levels = []
        for index, width in enumerate(widths):
            inputs = [widths[max(index - 1, 0)]] + [width] * config.layers_per_block
            sampler = ("upsamplers", Upsample(width)) if index < len(widths) - 1 else None
            levels.append(Level([ResidualBlock(channels, width, groups) for channels in inputs], sampler))
        self.up_blocks = nn.ModuleList(levels)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], eps=NORM_EPS)
        self.conv_out = nn.Conv2d(widths[-1], config.out_channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """z (N, C, h, w) -> (N, 3, H, W)."""
        x = self.mid_block(self.conv_in(z))
        for level in self.up_blocks:
            x = level(x)
        return self.conv_out(silu(self.conv_norm_out(x)))


class SpatialAutoencoder(nn.Module):
    """Between pictures (N, 3, H, W) in [-1, 1] and unscaled latents (N, C, H // stride, W // stride)."""

    def __init__(self, config: SpatialConfig | None = None) -> None:
        super().__init__()
        self.config = config or SpatialConfig()
        channels = self.config.latent_channels
        self.encoder = Encoder(self.config)
        self.decoder = Decoder(self.config)
        self.quant_conv = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.post_quant_conv = nn.Conv2d(channels, channels, 1)
        self.memory = MemoryMode()

    def set_memory_mode(self, mode: str, *, tile: int = TILE, overlap: int = OVERLAP) -> None:
        """Compute in another way from now on: "plain", "low" or "tiled", see `MemoryMode`. Raises ValueError."""
        memory = MemoryMode(mode, tile, overlap)
        memory.check_stride(self.config.stride)
        self.memory = memory

    def moments(self, x: Tensor) -> Tensor:
        """Mean and log-variance of the latents, (N, 2 C, h, w)."""
        match self._mode():
            case "low":
                return self.quant_conv(slabs.encode(self.encoder, x))
            case "tiled":
                return tiles.encode(lambda part: self.quant_conv(self.encoder(part)), x, **self._tiles())
        return self.quant_conv(self.encoder(x))

    def decode(self, z: Tensor) -> Tensor:
        """Pixels (N, 3, H, W) of latents (N, C, h, w)."""
        match self._mode():
            case "low":
                return slabs.decode(self.decoder, self.post_quant_conv(z))
            case "tiled":
                return tiles.decode(lambda part: self.decoder(self.post_quant_conv(part)), z, **self._tiles())
        return self.decoder(self.post_quant_conv(z))

    def _mode(self) -> str:
        """Slabs overwrite what gradients need, and training on tiles would be another objective."""
        return "plain" if torch.is_grad_enabled() else self.memory.name

    def _tiles(self) -> dict[str, int]:
        stride = self.config.stride
        return {"tile": self.memory.tile // stride, "overlap": self.memory.overlap // stride, "stride": stride}


class FrameEncoder(nn.Module):
    """Encodes each frame of a video by itself, with the scaling that a diffusion model expects.

    module: has `moments` as `SpatialAutoencoder`, and `quant_conv`. Frames do not influence each other, so how many go
    together changes nothing but rounding.
    """

    def __init__(self, module: Any, scaling_factor: float) -> None:
        super().__init__()
        self.module = module
        self.scaling_factor = scaling_factor

    def encode(
        self,
        pixels: Tensor,
        *,
        sample: bool = True,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
        frames_at_once: int | None = None,
    ) -> Tensor:
        """Scaled latents (B, C, T, h, w) of pixels (B, 3, T, H, W).

        sample: draw from the posterior, as the diffusion models were trained, else take its mean. noise: the standard
        normal to use, frames flattened (B * T, C, h, w).
        """
        rows = []
        for start, posterior in self._posteriors(pixels, frames_at_once):
            given = None if noise is None else noise[start : start + len(posterior.mean)]
            rows.append(posterior.sample(given, generator=generator) if sample else posterior.mean)
        return self._as_clips(torch.cat(rows), len(pixels))

    def _posteriors(self, pixels: Tensor, frames_at_once: int | None) -> Iterator[tuple[int, DiagonalGaussian]]:
        """The number of the first frame, all clips in a row, and the posterior of some frames."""
        frames = pixels.transpose(1, 2).flatten(0, 1)  # for one clip a view, not a copy
        size = frames_at_once or at_once(*frames.shape[2:])
        for start in range(0, len(frames), size):
            group = frames[start : start + size].to(self.dtype).contiguous()
            yield start, DiagonalGaussian(self.module.moments(group))

    def _as_clips(self, rows: Tensor, batch: int) -> Tensor:
        return (rows * self.scaling_factor).unflatten(0, (batch, -1)).transpose(1, 2)

    def unscaled(self, latents: Tensor) -> Tensor:
        """Latents before scaling."""
        return latents / self.scaling_factor

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the weights."""
        return self.module.quant_conv.weight.dtype


class FrameAutoencoder(FrameEncoder):
    """A spatial autoencoder applied to each frame of a video."""

    #: What only decoding to pixels uses.
    pixel_parts = ("module.decoder", "module.post_quant_conv")
    has_frame_latents = False

    def set_memory_mode(self, mode: str, *, tile: int = TILE, overlap: int = OVERLAP) -> None:
        """Compute in another way from now on, as `SpatialAutoencoder.set_memory_mode`. Raises ValueError.

        "plain", the start: layer by layer. "low": exact up to rounding, in about half the memory. "tiled": not exact,
        in tiles of `tile` pixels a side, whose neighbours fade into each other over `overlap` pixels. With gradients
        enabled everything is computed plainly.
        """
        self.module.set_memory_mode(mode, tile=tile, overlap=overlap)

    def forward(
        self,
        pixels: Tensor,
        *,
        generator: torch.Generator | None = None,
        sample: bool = True,
        decodes_pixels: bool = True,
    ) -> Reconstruction:
        """Encode and decode clips for training; see `protocols.TrainableAutoencoder`."""
        posteriors = tuple(posterior for _, posterior in self._posteriors(pixels, None))
        rows = [posterior.sample(generator=generator) if sample else posterior.mode() for posterior in posteriors]
        latents = self._as_clips(torch.cat(rows), len(pixels))
        decoded = torch.cat(list(self.decode_frames(latents)), dim=2) if decodes_pixels else None
        return Reconstruction(decoded, latents, posteriors)

    def last_layer(self) -> Tensor:
        """The last convolution of the decoder."""
        return self.module.decoder.conv_out.weight

    def blocks(self) -> list[nn.Module]:
        """The large parts."""
        encoder, decoder = self.module.encoder, self.module.decoder
        return [*encoder.down_blocks, encoder.mid_block, decoder.mid_block, *decoder.up_blocks]

    def decode_frames(self, latents: Tensor, frames_at_once: int | None = None) -> Iterator[Tensor]:
        """Pixels (B, 3, some frames, H, W) of scaled latents (B, C, T, h, w), piece by piece."""
        batch, stride = len(latents), self.module.config.stride
        size = frames_at_once or at_once(latents.shape[3] * stride, latents.shape[4] * stride)
        size = max(1, size // batch)
        for start in range(0, latents.shape[2], size):
            piece = latents[:, :, start : start + size].transpose(1, 2).flatten(0, 1)
            pixels = self.module.decode(piece.to(self.dtype) / self.scaling_factor)
            yield pixels.unflatten(0, (batch, -1)).transpose(1, 2)

    def decode(self, latents: Tensor, num_frames: int, *, frames_at_once: int | None = None) -> Iterator[Tensor]:
        """As `decode_frames`; there is one latent per frame, else ValueError."""
        if latents.shape[2] != num_frames:
            raise ValueError(f"{latents.shape[2]} latent frames are as many frames, not {num_frames}")
        return self.decode_frames(latents, frames_at_once)


def at_once(height: int, width: int) -> int:
    """How many frames of a size in pixels go together by default."""
    return max(1, PIXELS_AT_ONCE // (height * width))
