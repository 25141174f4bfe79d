"""The decoder of Stable Video Diffusion (Blattmann et al. 2023, arXiv 2311.15127): many frames of a clip together.

The encoder is that of pictures. The tests compare the network with diffusers' AutoencoderKLTemporalDecoder.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import SpatialConfig
from .model import NORM_EPS, Encoder, FrameEncoder, Level, MiddleBlock, ResidualBlock, Upsample, add, silu
from .modes import CHUNK

GROUPS = 32
TEMPORAL_NORM_EPS = 1e-5


class TemporalResidualBlock(nn.Module):
    """Norm over all frames, SiLU, convolution over three frames, twice, plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, channels, eps=TEMPORAL_NORM_EPS)
        self.conv1 = nn.Conv3d(channels, channels, (3, 1, 1), padding=(1, 0, 0))
        self.norm2 = nn.GroupNorm(GROUPS, channels, eps=TEMPORAL_NORM_EPS)
        self.conv2 = nn.Conv3d(channels, channels, (3, 1, 1), padding=(1, 0, 0))

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, T, H, W) -> same shape."""
        h = self.conv1(silu(self.norm1(x)))
        h = silu(self.norm2(h))  # under the same name, so that no more than two features beside x exist
        return add(self.conv2(h), x)


class Mixer(nn.Module):
    """A learned blend of two tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.mix_factor = nn.Parameter(torch.zeros(1))

    def forward(self, spatial: Tensor, temporal: Tensor) -> Tensor:
        """Tensors of one shape -> the same shape."""
        return torch.lerp(spatial, temporal, torch.sigmoid(self.mix_factor))


class SpatioTemporalBlock(nn.Module):
    """A block per frame, then one over the frames, blended."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.spatial_res_block = ResidualBlock(in_channels, out_channels, GROUPS)
        self.temporal_res_block = TemporalResidualBlock(out_channels)
        self.time_mixer = Mixer()

    def forward(self, x: Tensor, num_frames: int) -> Tensor:
        """x (B * T, C, H, W) -> (B * T, C_out, H, W)."""
        spatial = self.spatial_res_block(x).unflatten(0, (-1, num_frames)).transpose(1, 2)
        mixed = self.time_mixer(spatial, self.temporal_res_block(spatial))
        return mixed.transpose(1, 2).flatten(0, 1)


class TemporalDecoder(nn.Module):
    """Latents (B * T, C, h, w) to pixels (B * T, 3, H, W)."""

    def __init__(self, config: SpatialConfig) -> None:
        super().__init__()
        widths = config.block_out_channels[::-1]
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        middle: list[nn.Module] = [SpatioTemporalBlock(widths[0], widths[0]) for _ in range(config.layers_per_block)]
        self.mid_block = MiddleBlock(middle, widths[0], GROUPS)
        levels = []
        for index, width in enumerate(widths):
            inputs = [widths[max(index - 1, 0)]] + [width] * config.layers_per_block
            sampler = ("upsamplers", Upsample(width)) if index < len(widths) - 1 else None
            levels.append(Level([SpatioTemporalBlock(channels, width) for channels in inputs], sampler))
        self.up_blocks = nn.ModuleList(levels)
        self.conv_norm_out = nn.GroupNorm(GROUPS, widths[-1], eps=NORM_EPS)
        self.conv_out = nn.Conv2d(widths[-1], config.out_channels, 3, padding=1)
        self.time_conv_out = nn.Conv3d(config.out_channels, config.out_channels, (3, 1, 1), padding=(1, 0, 0))

    def forward(self, z: Tensor, num_frames: int) -> Tensor:
        """z (B * T, C, h, w) with T = num_frames -> (B * T, 3, H, W)."""
        x = self.mid_block(self.conv_in(z), num_frames)
        for level in self.up_blocks:
            x = level(x, num_frames)
        x = self.conv_out(F.silu(self.conv_norm_out(x)))
        x = self.time_conv_out(x.unflatten(0, (-1, num_frames)).transpose(1, 2))
        return x.transpose(1, 2).flatten(0, 1)


class TemporalDecoderNetwork(nn.Module):
    """The whole checkpoint: the encoder of pictures and the decoder of clips."""

    def __init__(self, config: SpatialConfig) -> None:
        super().__init__()
        self.config = replace(config, norm_num_groups=GROUPS)
        self.encoder = Encoder(self.config)
        self.decoder = TemporalDecoder(self.config)
        self.quant_conv = nn.Conv2d(2 * config.latent_channels, 2 * config.latent_channels, 1)

    def moments(self, x: Tensor) -> Tensor:
        """Mean and log-variance of the latents, (N, 2 C, h, w), of pictures (N, 3, H, W)."""
        return self.quant_conv(self.encoder(x))


class TemporalDecoderAutoencoder(FrameEncoder):
    """Encodes frames by themselves, and decodes them in chunks of up to CHUNK from the first on.

    Norms average over a chunk and convolutions look at its frames, so pixels depend on where chunks begin and end.
    """

    def decode(self, latents: Tensor, num_frames: int, *, frames_at_once: int | None = None) -> Iterator[Tensor]:
        """Pixels of scaled latents (B, C, T, h, w) in pieces (B, 3, some frames, H, W).

        frames_at_once: not used, since another number would be another result. There is one latent per frame, else
        ValueError.
        """
        if latents.shape[2] != num_frames:
            raise ValueError(f"{latents.shape[2]} latent frames are as many frames, not {num_frames}")
        for chunk in latents.split(CHUNK, dim=2):
            frames = (chunk.transpose(1, 2).flatten(0, 1) / self.scaling_factor).to(self.dtype)
            yield self.module.decoder(frames, chunk.shape[2]).unflatten(0, (len(latents), -1)).transpose(1, 2)

    def blocks(self) -> list[nn.Module]:
        """The large parts."""
        encoder, decoder = self.module.encoder, self.module.decoder
        return [*encoder.down_blocks, encoder.mid_block, decoder.mid_block, *decoder.up_blocks]
