"""nano's video autoencoder: a linear encoder of 4 x 16 x 16 pixel blocks and a small causal convolutional decoder.

The first frame is coded alone (as a block of four equal frames), every later latent frame codes four frames, so
1 + 4 k frames give 1 + k latent frames and there are no pieces with seams. The encoder is a principal component
analysis of blocks; the decoder is its exact inverse plus a learned correction that removes block edges and restores
detail. Norms are per position and time is causal, so a clip decoded in pieces equals the clip decoded whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sora_cli.plugin.protocols import Reconstruction

if TYPE_CHECKING:
    from sora_cli.weights.locate import LocatedWeights

BLOCK = 16  # pixels per latent position and side
STRIDE = 4  # frames per latent frame
CHANNELS = 32
PIXELS_PER_PIECE = 2_000_000  # output pixels decoded at a time; bounds memory to some hundred MB


def latent_frames(num_frames: int) -> int:
    """Latent frames of a clip: 1, then one for every four frames begun."""
    return 1 + -(-(num_frames - 1) // STRIDE)


def zero(layer: nn.Conv2d) -> None:
    """Zero weights and bias: a residual branch starts as nothing."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


class PositionNorm(nn.Module):
    """RMS norm over the channels of each position of (N, C, H, W): exact in tiles and in pieces."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, H, W) -> same shape."""
        return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-5) * self.weight


class CausalMix(nn.Module):
    """Adds a linear mix of this and the two previous frames; the history makes pieces equal to the whole."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.taps = nn.Conv2d(3 * channels, channels, 1)
        zero(self.taps)

    def forward(self, x: Tensor, history: list[Tensor]) -> Tensor:
        """x (B, T, C, H, W). history: empty at the start of a clip, then the last two frames; updated in place."""
        past = history[0] if history else x[:, :1].expand(-1, 2, -1, -1, -1)
        stream = torch.cat([past, x], dim=1)
        history[:] = [stream[:, -2:]]
        taps = torch.cat([stream[:, :-2], stream[:, 1:-1], x], dim=2)
        return x + self.taps(taps.flatten(0, 1)).unflatten(0, x.shape[:2])


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions around a residual, then an optional causal mix over time."""

    def __init__(self, channels: int, *, is_temporal: bool) -> None:
        super().__init__()
        self.norm = PositionNorm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        zero(self.conv2)
        self.mix = CausalMix(channels) if is_temporal else None

    def forward(self, x: Tensor, history: list[Tensor]) -> Tensor:
        """x (B, T, C, H, W) -> same shape."""
        flat = x.flatten(0, 1)
        flat = flat + self.conv2(F.silu(self.conv1(self.norm(flat))))
        out = flat.unflatten(0, x.shape[:2])
        return out if self.mix is None else self.mix(out, history)


class Decoder(nn.Module):
    """The learned correction: latents (B, T, C, h, w) to pixels (B, 4 T, 3, 16 h, 16 w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.input = nn.Conv2d(channels, 192, 3, padding=1)
        self.coarse = nn.ModuleList(ResidualBlock(192, is_temporal=True) for _ in range(2))
        self.to_eighth = nn.Conv2d(192, 4 * 128, 1)
        self.middle = nn.ModuleList(ResidualBlock(128, is_temporal=True) for _ in range(2))
        self.to_frames = nn.Conv2d(128, STRIDE * 64, 1)
        self.eighth = ResidualBlock(64, is_temporal=False)
        self.to_quarter = nn.Conv2d(64, 4 * 40, 1)
        self.quarter = ResidualBlock(40, is_temporal=False)
        self.output = nn.Conv2d(40, 3 * 16, 3, padding=1)
        zero(self.output)

    def forward(self, z: Tensor, history: dict[str, list[Tensor]]) -> Tensor:
        """history: one list per temporal block, kept by the caller between the pieces of a clip."""
        batch, frames = z.shape[:2]
        x = self.input(z.flatten(0, 1)).unflatten(0, (batch, frames))
        for index, block in enumerate(self.coarse):
            x = block(x, history.setdefault(f"coarse{index}", []))
        x = F.pixel_shuffle(self.to_eighth(x.flatten(0, 1)), 2).unflatten(0, (batch, frames))
        for index, block in enumerate(self.middle):
            x = block(x, history.setdefault(f"middle{index}", []))
        x = self.to_frames(x.flatten(0, 1)).unflatten(1, (STRIDE, 64)).flatten(0, 1)[None]
        x = self.eighth(x, [])
        x = F.pixel_shuffle(self.to_quarter(x[0]), 2)[None]
        x = self.quarter(x, [])[0]
        return F.pixel_shuffle(self.output(F.silu(x)), 4).unflatten(0, (batch, frames * STRIDE))


class NanoAutoencoder(nn.Module):
    """Encoder, decoder and scaling. Pixels (B, 3, T, H, W) in [-1, 1]; latents (B, 32, t, ceil(H/16), ceil(W/16))."""

    mean: Tensor
    basis: Tensor
    scale: Tensor
    #: All that is trained decodes to pixels.
    pixel_parts = ("decoder",)
    has_frame_latents = False

    def __init__(self, channels: int = CHANNELS) -> None:
        super().__init__()
        size = 3 * STRIDE * BLOCK * BLOCK
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("basis", torch.zeros(channels, size))
        self.register_buffer("scale", torch.ones(channels))
        self.decoder = Decoder(channels)

    @torch.no_grad()
    def encode(self, pixels: Tensor, *, continues: bool = False) -> Tensor:
        """Latents of a clip, float32. The right and bottom edges are repeated to whole blocks, the last frame to whole
        groups of four. continues: the frames follow 1 + 4 n others of a clip."""
        height, width = pixels.shape[3:]
        pixels = pixels.float()
        if not continues:
            pixels = torch.cat([pixels[:, :, :1].expand(-1, -1, STRIDE - 1, -1, -1), pixels], dim=2)
        pads = (0, -width % BLOCK, 0, -height % BLOCK, 0, -pixels.shape[2] % STRIDE)
        blocks = self.to_blocks(F.pad(pixels, pads, mode="replicate"))
        return ((blocks - self.mean.float()) @ self.basis.float().T / self.scale.float()).permute(0, 4, 1, 2, 3)

    @staticmethod
    def to_blocks(pixels: Tensor) -> Tensor:
        """Whole blocks: (B, 3, 4 t, 16 h, 16 w) -> (B, t, h, w, 3 * 4 * 16 * 16)."""
        batch, _, frames, height, width = pixels.shape
        grid = pixels.view(batch, 3, frames // STRIDE, STRIDE, height // BLOCK, BLOCK, width // BLOCK, BLOCK)
        return grid.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4)

    def unscaled(self, latents: Tensor) -> Tensor:
        """Latents before they were divided by their deviations."""
        return latents * self.scale[:, None, None, None]

    def linear_decode(self, z: Tensor) -> Tensor:
        """The encoder's inverse: latents (B, T, C, h, w) -> pixels (B, 4 T, 3, 16 h, 16 w), float32."""
        batch, frames, _, height, width = z.shape
        values = z.float().permute(0, 1, 3, 4, 2) * self.scale.float()
        blocks = values @ self.basis.float() + self.mean.float()
        grid = blocks.view(batch, frames, height, width, 3, STRIDE, BLOCK, BLOCK)
        return grid.permute(0, 1, 5, 4, 2, 6, 3, 7).reshape(batch, frames * STRIDE, 3, height * BLOCK, width * BLOCK)

    def decode_piece(self, z: Tensor, history: dict[str, list[Tensor]]) -> Tensor:
        """Consecutive latent frames (B, T, C, h, w) -> (B, 4 T, 3, 16 h, 16 w) float32, with gradients."""
        dtype = self.decoder.input.weight.dtype
        return self.linear_decode(z) + self.decoder(z.to(dtype), history).float()

    @torch.no_grad()
    def decode(self, latents: Tensor, num_frames: int, *, frames_at_once: int | None = None) -> Iterator[Tensor]:
        """Pixels in pieces (B, 3, some frames, 16 h, 16 w), float32, `num_frames` frames together.

        The size is that of whole blocks; the caller cuts the clip's own size from the top left.
        """
        batch, _, frames, height, width = latents.shape
        if num_frames > 1 + (frames - 1) * STRIDE:
            raise ValueError(f"{frames} latent frames hold {1 + (frames - 1) * STRIDE} frames, not {num_frames}")
        pixels = batch * STRIDE * height * width * BLOCK * BLOCK
        step = max(1, PIXELS_PER_PIECE // pixels if frames_at_once is None else frames_at_once // STRIDE)
        history: dict[str, list[Tensor]] = {}
        done = 0
        for start in range(0, frames, step):
            piece = self.decode_piece(latents[:, :, start : start + step].transpose(1, 2), history)
            if start == 0:
                piece = piece[:, STRIDE - 1 :]  # the first latent frame codes one frame
            piece = piece[:, : num_frames - done]
            done += piece.shape[1]
            yield piece.transpose(1, 2)
            if done == num_frames:
                return

    def forward(
        self,
        pixels: Tensor,
        *,
        generator: torch.Generator | None = None,
        sample: bool = True,
        decodes_pixels: bool = True,
    ) -> Reconstruction:
        """Encode and decode clips for training; see `protocols.TrainableAutoencoder`. Nothing is drawn."""
        frames, height, width = pixels.shape[2:]
        latents = self.encode(pixels)
        if not decodes_pixels:
            return Reconstruction(None, latents)
        decoded = self.decode_piece(latents.transpose(1, 2), {})[:, STRIDE - 1 :].transpose(1, 2)
        return Reconstruction(decoded[:, :, :frames, :height, :width], latents)

    def last_layer(self) -> Tensor:
        """The last convolution."""
        return self.decoder.output.weight

    def blocks(self) -> list[nn.Module]:
        """The large parts: none is computed again by itself, because a block hands frames on to its next call."""
        return []


def build(config: Mapping[str, Any]) -> NanoAutoencoder:
    """A network to train; its encoder, which is no network, comes with the weights it starts from."""
    return NanoAutoencoder()


def to_channels_last(network: nn.Module) -> None:
    """Keep the convolutions' weights in the memory layout that CPUs and GPUs convolve fastest."""
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def load(weights: LocatedWeights, device: torch.device, dtype: torch.dtype) -> NanoAutoencoder:
    """The autoencoder from a folder with `autoencoder.safetensors`, or from the files of a training run.

    The decoder is in `dtype`, the encoder in float32.
    """
    from sora_cli.weights.load import read_tensors

    with torch.device("meta"):
        model = NanoAutoencoder()
    named = weights.folder / "autoencoder.safetensors"  # other parts of nano may lie beside it
    files = [named] if named.is_file() else weights.files
    model.load_state_dict(read_tensors(files), strict=True, assign=True)
    model.decoder.to(dtype)
    to_channels_last(model.decoder)
    return model.to(device).eval()
