"""The video autoencoder of Open-Sora 1.2."""

from __future__ import annotations

from sora_cli.plugin.hooks import hookimpl
from sora_cli.plugin.specs import VAESpec, Weights

from .sizes import MICRO_FRAME_SIZE, latent_frames


@hookimpl
def sora_vaes() -> list[VAESpec]:
    """The released autoencoder."""
    return [
        VAESpec(
            name="opensora-vae-v1.2",
            summary="Open-Sora 1.2's autoencoder: 17 frames of 8 x 8 pixels to 5 times 4 numbers, streamed",
            target="sora_plugins.opensora_vae.weights:load",
            latent_channels=4,
            spatial_stride=8,
            temporal_stride=4,
            latent_frames=latent_frames,
            train="sora_plugins.opensora_vae.weights:build",
            start="sora_plugins.opensora_vae.weights:start",
            piece_frames=MICRO_FRAME_SIZE,
            is_sampled=True,
            rank=10,
            weights=Weights(
                repo="hpcai-tech/OpenSora-VAE-v1.2",
                files=("config.json", "model.safetensors"),
                licence="Apache-2.0",
                size_gib=1.5,
            ),
            memory="sora_plugins.opensora_vae.memory:decode_memory",
        )
    ]
