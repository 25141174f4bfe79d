"""A model of a few hundred parameters with its autoencoder and text encoder, for tests of the real executable.

The environment variables TINY_STEP_SECONDS and TINY_DECODE_SECONDS slow it down, so that a test can interrupt it;
TINY_FAIL makes it fail with that message, and TINY_ROWS when it is called with more rows. With TINY_SHARED processes
may share a clip; each then does all of the work. With TINY_GIVEN it can go on from what it is given.
"""

from __future__ import annotations

import os

from sora_cli import Constraints, ModelSpec, TextEncoderSpec, VAESpec, Weights, hookimpl


@hookimpl
def sora_models() -> list[ModelSpec]:
    return [
        ModelSpec(
            name="tiny",
            summary="a model for tests",
            tasks=("t2v", "t2i", *(["i2v"] if "TINY_GIVEN" in os.environ else [])),
            target="sora_tiny.parts:build",
            variants={"small": {"channels": 4}},
            weights={"small": Weights(package="sora_tiny", files=("model.safetensors",))},
            scheduler="rectified_flow",
            vae="tiny-vae",
            text_encoder="tiny-text",
            constraints=Constraints(max_frames=64),
            note="tiny makes coloured noise",
            shard="sora_tiny.parts:share" if "TINY_SHARED" in os.environ else None,
        )
    ]


@hookimpl
def sora_vaes() -> list[VAESpec]:
    return [
        VAESpec(
            name="tiny-vae",
            summary="repeats latents",
            target="sora_tiny.parts:load_vae",
            latent_channels=4,
            spatial_stride=8,
            temporal_stride=4,
            latent_frames=lambda num_frames: -(-num_frames // 4),
            piece_frames=4,
        )
    ]


@hookimpl
def sora_text_encoders() -> list[TextEncoderSpec]:
    return [
        TextEncoderSpec(name="tiny-text", summary="letters", target="sora_tiny.parts:load_text", width=8, max_tokens=32)
    ]
