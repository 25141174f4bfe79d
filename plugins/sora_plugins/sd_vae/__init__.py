"""Per-frame autoencoders: the spatial autoencoder of Open-Sora 1.0 and 1.1, DiT, Latte and PixArt."""

from __future__ import annotations

from sora_cli.plugin.hooks import hookimpl
from sora_cli.plugin.specs import VAESpec, Weights

from .modes import CHUNK

FILES = ("config.json", "diffusion_pytorch_model.safetensors")
#: What Stable Diffusion's encoder makes, which other decoders read too.
LATENTS = "stable-diffusion"


def _every_frame(num_frames: int) -> int:
    return num_frames


def _spec(name: str, summary: str, weights: Weights, latents: str = "") -> VAESpec:
    return VAESpec(
        name=name,
        summary=summary,
        target="sora_plugins.sd_vae.weights:load",
        latent_channels=4,
        spatial_stride=8,
        temporal_stride=1,
        latent_frames=_every_frame,
        latents=latents,
        train="sora_plugins.sd_vae.weights:build",
        start="sora_plugins.sd_vae.weights:start",
        is_sampled=True,
        weights=weights,
        memory="sora_plugins.sd_vae.memory:decode_memory",
    )


@hookimpl
def sora_vaes() -> list[VAESpec]:
    """One architecture with three sets of weights, and one with another decoder."""
    return [
        _spec(
            "sd-vae-ft-ema",
            "Stable Diffusion's autoencoder, fine-tuned: every frame by itself, 8 x 8 pixels to 4 numbers",
            Weights(repo="stabilityai/sd-vae-ft-ema", files=FILES, licence="MIT", size_gib=0.31),
            LATENTS,
        ),
        _spec(
            "sd-vae-ft-mse",
            "the same, fine-tuned longer for smaller squared error",
            Weights(repo="stabilityai/sd-vae-ft-mse", files=FILES, licence="MIT", size_gib=0.31),
            LATENTS,
        ),
        _spec(
            "sdxl-vae",
            "SDXL's autoencoder, as PixArt-Sigma uses it: every frame by itself, 8 x 8 pixels to 4 numbers",
            Weights(
                repo="PixArt-alpha/pixart_sigma_sdxlvae_T5_diffusers",
                files=tuple(f"vae/{name}" for name in FILES),
                size_gib=0.31,
            ),
        ),
        VAESpec(
            name="svd-temporal-decoder",
            summary=f"Stable Video Diffusion's autoencoder: every frame encoded by itself, {CHUNK} decoded together",
            target="sora_plugins.sd_vae.weights:load_temporal",
            latent_channels=4,
            spatial_stride=8,
            temporal_stride=1,
            latent_frames=_every_frame,
            latents=LATENTS,
            decoded_together=CHUNK,
            is_sampled=True,
            weights=Weights(
                repo="maxin-cn/Latte-1", files=tuple(f"vae_temporal_decoder/{name}" for name in FILES), size_gib=0.36
            ),
            memory="sora_plugins.sd_vae.memory:temporal_decode_memory",
        ),
    ]
