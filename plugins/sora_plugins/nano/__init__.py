"""nano: the small model that ships inside the package."""

from __future__ import annotations

from sora_cli.plugin.hooks import hookimpl
from sora_cli.plugin.specs import Constraints, ModelSpec, TextEncoderSpec, TrainedSize, UpscalerSpec, VAESpec, Weights

from .config import MODEL_CONFIG


def _latent_frames(num_frames: int) -> int:
    """One latent frame for the first frame, then one for every four begun; as `autoencoder.latent_frames`."""
    return 1 + -(-(num_frames - 1) // 4)


def _weights(*files: str) -> Weights:
    return Weights(package="sora_plugins.nano.weights", files=files, licence="Apache-2.0")


@hookimpl
def sora_models() -> list[ModelSpec]:
    """The diffusion model."""
    return [
        ModelSpec(
            name="nano",
            summary="embedded demonstration model: twelve scenes, 144p, runs on any CPU in seconds",
            tasks=("t2v", "i2v", "extend", "t2i"),
            target="sora_plugins.nano.model:build",
            options="sora_plugins.stdit.options:STDiTOptions",
            variants={"base": MODEL_CONFIG},
            weights={"base": _weights("model.safetensors")},
            scheduler="rectified_flow",
            vae="nano",
            text_encoder="nano",
            noise="sora_plugins.nano.noise:noise_for",
            shard="sora_plugins.stdit.parallel:shard",
            constraints=Constraints(
                spatial_multiple=1,  # whole blocks are decoded, and what is too much is cut off
                max_frames=204,
                max_side=1280,
                min_side=96,
                sampled_area=144 * 256,
                trained="144p (144x256), 1 to 51 frames at 24 fps, twelve kinds of scene",
                trained_sizes=(TrainedSize("144p", 51),),
            ),
            upscaler="nano",
            text_width="sora_plugins.stdit.config:text_width",
            readme="sora_plugins.nano:README.md",
            rank=0,
            note="nano is a small demonstration model that knows twelve kinds of scene",
        )
    ]


@hookimpl
def sora_vaes() -> list[VAESpec]:
    """The autoencoder."""
    return [
        VAESpec(
            name="nano",
            summary="nano's autoencoder: 16 x 16 x 4 pixel blocks, causal, streamed",
            target="sora_plugins.nano.autoencoder:load",
            latent_channels=32,
            spatial_stride=16,
            temporal_stride=4,
            latent_frames=_latent_frames,
            covers_edges=True,
            train="sora_plugins.nano.autoencoder:build",
            piece_frames=4,
            leading_frames=1,
            context_latents=8,  # two of each of the four causal mixes
            weights=_weights("autoencoder.safetensors"),
        )
    ]


@hookimpl
def sora_text_encoders() -> list[TextEncoderSpec]:
    """The word table."""
    return [
        TextEncoderSpec(
            name="nano",
            summary="frozen word table, 30522 word pieces of 128 values, made from all-MiniLM-L6-v2",
            target="sora_plugins.nano.text:load",
            width=128,
            max_tokens=64,
            weights=_weights("text_table.safetensors", "vocab.txt"),
        )
    ]


@hookimpl
def sora_upscalers() -> list[UpscalerSpec]:
    """The network, and what it starts from."""
    return [
        UpscalerSpec(
            name="nano",
            summary="nano's upscaler: a small network that sharpens 144p, frame by frame",
            target="sora_plugins.nano.upscaler:load",
            weights=_weights("upscaler.safetensors"),
        ),
        UpscalerSpec(
            name="bicubic",
            summary="bicubic interpolation",
            target="sora_plugins.nano.upscaler:load_bicubic",
        ),
    ]
