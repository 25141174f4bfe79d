"""The video autoencoder of Open-Sora 1.2: each frame by the spatial autoencoder, then pieces of 17 frames in time.

Pieces do not know of each other, and within a piece frames meet only in the temporal part, so coding piece by piece and
frame by frame is exact, and memory does not grow with the length of a clip.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from sora_cli.plugin.protocols import Reconstruction
from sora_plugins.sd_vae.gaussian import DiagonalGaussian
from sora_plugins.sd_vae.model import FrameAutoencoder, SpatialAutoencoder
from sora_plugins.sd_vae.modes import OVERLAP, TILE

from .config import Constants, VideoAutoencoderConfig
from .sizes import latent_frames
from .temporal import TemporalAutoencoder, TemporalResidualBlock


class VideoAutoencoder(nn.Module):
    """Pixels (B, 3, T, H, W) in [-1, 1] to and from latents (B, 4, L, H // 8, W // 8) of about unit variance."""

    shift: Tensor
    scale: Tensor
    #: What only decoding to pixels uses.
    pixel_parts = ("spatial_vae.module.decoder", "spatial_vae.module.post_quant_conv")
    has_frame_latents = True

    def __init__(self, config: VideoAutoencoderConfig | None = None) -> None:
        super().__init__()
        self.config = config or VideoAutoencoderConfig()
        self.spatial_vae = FrameAutoencoder(SpatialAutoencoder(self.config.spatial), self.config.scaling_factor)
        self.temporal_vae = TemporalAutoencoder(self.config.temporal)
        self.register_buffer("shift", _constants(self.config.shift))
        self.register_buffer("scale", _constants(self.config.scale))

    def set_memory_mode(self, mode: str, *, tile: int = TILE, overlap: int = OVERLAP) -> None:
        """Compute in another way from now on, where no gradients are enabled. Raises ValueError.

        "plain", the start: layer by layer. "low": exact up to rounding, in about half the memory. "tiled": not exact,
        the spatial part in tiles of `tile` pixels a side, whose neighbours fade into each other over `overlap` pixels;
        the temporal part stays exact, as in "low".
        """
        self.spatial_vae.set_memory_mode(mode, tile=tile, overlap=overlap)
        self.temporal_vae.uses_slabs = mode != "plain"

    # -- encoding ------------------------------------------------------------------------------------------------

    def encode(
        self,
        pixels: Tensor,
        *,
        sample: bool = True,
        generator: torch.Generator | None = None,
        frames_at_once: int | None = None,
    ) -> Tensor:
        """Latents of a clip of any length, float32. sample: draw from both posteriors, as in training, else means."""
        raw = []
        for piece in self._pieces(pixels, self.config.micro_frame_size):
            frames = self.spatial_vae.encode(piece, sample=sample, generator=generator, frames_at_once=frames_at_once)
            posterior = self.temporal_vae.encode(frames)
            raw.append(posterior.sample(generator=generator) if sample else posterior.mode())
        return (torch.cat(raw, dim=2).float() - self.shift.float()) / self.scale.float()

    def encode_raw(
        self,
        pixels: Tensor,
        *,
        sample: bool = True,
        noise: tuple[Tensor, list[Tensor]] | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, tuple[DiagonalGaussian, ...], Tensor]:
        """Raw latents, the posterior of each piece, and the latents of the frames; for training.

        noise: standard normals to use, for the frames (B * T, 4, h, w) and for each piece, instead of drawing them.
        """
        spatial_noise, piece_noise = noise or (None, None)
        frames = self.spatial_vae.encode(pixels, sample=sample, noise=spatial_noise, generator=generator)
        posteriors = tuple(
            self.temporal_vae.encode(piece) for piece in self._pieces(frames, self.config.micro_frame_size)
        )
        given: list[Tensor | None] = [None] * len(posteriors) if piece_noise is None else [*piece_noise]
        latents = [
            posterior.sample(one, generator=generator) if sample else posterior.mode()
            for posterior, one in zip(posteriors, given, strict=True)
        ]
        return torch.cat(latents, dim=2), posteriors, frames

    # -- decoding ------------------------------------------------------------------------------------------------

    def decode(self, latents: Tensor, num_frames: int, *, frames_at_once: int | None = None) -> Iterator[Tensor]:
        """Pixels (B, 3, some frames, H, W), piece by piece; ValueError when the latents are not of so many frames.

        frames_at_once: frames that the spatial part decodes together; by default as many as make one 720p frame.
        """
        wanted = self.latent_frames(num_frames)
        if latents.shape[2] != wanted:
            raise ValueError(f"{num_frames} frames have {wanted} latent frames, not {latents.shape[2]}")
        return self._decode_pieces(latents, num_frames, frames_at_once)

    def _decode_pieces(self, latents: Tensor, num_frames: int, frames_at_once: int | None) -> Iterator[Tensor]:
        for frames in self.decode_temporal(latents, num_frames, is_raw=False):
            yield from self.spatial_vae.decode_frames(frames, frames_at_once)

    def decode_temporal(self, latents: Tensor, num_frames: int, *, is_raw: bool = True) -> Iterator[Tensor]:
        """Latents of frames, (B, 4, some, h, w), piece by piece. is_raw: shift and scale are not in the latents.

        The number of frames left decides how many of a piece are kept: a piece of L latents that codes fewer frames
        than it could drops the first of them, which code padding.
        """
        micro = self.config.micro_frame_size
        size = None if micro is None else -(-micro // self.config.temporal.time_factor)
        left = num_frames
        for piece in self._pieces(latents, size):
            if not is_raw:
                piece = (piece.float() * self.scale.float() + self.shift.float()).to(self.dtype)
            frames = left if micro is None else min(micro, left)
            yield self.temporal_vae.decode(piece, frames)
            left -= frames

    def forward(
        self,
        pixels: Tensor,
        *,
        noise: tuple[Tensor, list[Tensor]] | None = None,
        generator: torch.Generator | None = None,
        sample: bool = True,
        decodes_pixels: bool = True,
    ) -> Reconstruction:
        """Encode and decode a clip for training; see `protocols.TrainableAutoencoder`. noise: as in `encode_raw`."""
        latents, posteriors, encoded = self.encode_raw(pixels, noise=noise, generator=generator, sample=sample)
        frames = torch.cat(list(self.decode_temporal(latents, pixels.shape[2])), dim=2)
        decoded = torch.cat(list(self.spatial_vae.decode_frames(frames)), dim=2) if decodes_pixels else None
        return Reconstruction(decoded, latents, posteriors, frames, encoded)

    def unscaled(self, latents: Tensor) -> Tensor:
        """Latents before shift and scale."""
        return latents * self.scale.float() + self.shift.float()

    def reconstruct_frames(self, pixels: Tensor, *, sample: bool = True) -> Tensor:
        """Pixels (B, 3, T, H, W) through the spatial part alone."""
        frames = self.spatial_vae.encode(pixels, sample=sample)
        return torch.cat(list(self.spatial_vae.decode_frames(frames)), dim=2)

    def last_layer(self) -> Tensor:
        """The last layer of the temporal decoder."""
        return self.temporal_vae.decoder.conv_out.conv.weight

    def blocks(self) -> list[nn.Module]:
        """The large parts."""
        temporal = self.temporal_vae.modules()
        return [*self.spatial_vae.blocks(), *(part for part in temporal if isinstance(part, TemporalResidualBlock))]

    # -- sizes ---------------------------------------------------------------------------------------------------

    def latent_frames(self, num_frames: int) -> int:
        """Latent frames of a clip."""
        return latent_frames(num_frames, self.config.micro_frame_size, self.config.temporal.time_factor)

    def get_latent_size(self, size: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """(L, h, w) of the latents of (T, H, W); None stays None."""
        frames, *sides = size
        stride = self.config.spatial.stride
        return (
            None if frames is None else self.latent_frames(frames),
            *(None if side is None else side // stride for side in sides),
        )

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the weights; shift and scale stay in float32."""
        return self.spatial_vae.dtype

    @staticmethod
    def _pieces(x: Tensor, size: int | None) -> tuple[Tensor, ...]:
        return (x,) if size is None else x.split(size, dim=2)


def _constants(values: Constants) -> Tensor:
    """A buffer of shape () or (1, C, 1, 1, 1)."""
    tensor = torch.tensor(values, dtype=torch.float32)
    return tensor if tensor.dim() == 0 else tensor[None, :, None, None, None]
