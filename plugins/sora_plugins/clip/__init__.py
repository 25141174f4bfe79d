"""CLIP ViT-B/32, the text encoder of DiT and Latte models that are trained on captions."""

from __future__ import annotations

from sora_cli.plugin.hooks import hookimpl
from sora_cli.plugin.specs import TextEncoderSpec, Weights


@hookimpl
def sora_text_encoders() -> list[TextEncoderSpec]:
    """The released encoder."""
    return [
        TextEncoderSpec(
            name="clip-vit-base-patch32",
            aliases=("clip",),
            summary="CLIP ViT-B/32: a caption of up to 77 tokens as one vector of 512 numbers",
            target="sora_plugins.clip.encoder:load",
            width=512,
            max_tokens=1,  # what a model sees of a caption
            dtypes=("fp32", "bf16"),
            weights=Weights(
                repo="openai/clip-vit-base-patch32",
                files=(
                    "config.json",
                    "merges.txt",
                    "special_tokens_map.json",
                    "tokenizer.json",
                    "tokenizer_config.json",
                    "vocab.json",
                    "pytorch_model.bin",
                ),
                licence="MIT",
                size_gib=0.57,
            ),
            memory="sora_plugins.clip.memory:encode_memory",
            width_of="sora_plugins.clip.memory:width_of",
        )
    ]
