"""T5 v1.1 XXL, the text encoder of Open-Sora and PixArt."""

from __future__ import annotations

from sora_cli.plugin.hooks import hookimpl
from sora_cli.plugin.specs import TextEncoderSpec, Weights


@hookimpl
def sora_text_encoders() -> list[TextEncoderSpec]:
    """The released encoder."""
    return [
        TextEncoderSpec(
            name="t5-v1.1-xxl",
            aliases=("t5",),
            summary="T5 v1.1 XXL: 300 tokens of 4096 numbers; captions are cleaned as the released samplers do",
            target="sora_plugins.t5.encoder:load",
            width=4096,
            max_tokens=300,
            dtypes=("fp32", "bf16", "int8"),
            weights=Weights(
                repo="DeepFloyd/t5-v1_1-xxl",
                files=(
                    "config.json",
                    "special_tokens_map.json",
                    "spiece.model",
                    "tokenizer_config.json",
                    "pytorch_model.bin.index.json",
                    "pytorch_model-00001-of-00002.bin",
                    "pytorch_model-00002-of-00002.bin",
                ),
                licence="Apache-2.0",
                size_gib=17.7,
            ),
            memory="sora_plugins.t5.memory:encode_memory",
        )
    ]
