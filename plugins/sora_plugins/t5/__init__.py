"""T5 v1.1 XXL, the text encoder of Open-Sora and PixArt."""

from __future__ import annotations

from sora_cli.plugin.hooks import hookimpl
from sora_cli.plugin.specs import TextEncoderSpec, Weights

WEIGHTS = Weights(
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
)


def _spec(name: str, target: str, max_tokens: int, aliases: tuple[str, ...] = ()) -> TextEncoderSpec:
    return TextEncoderSpec(
        name=name,
        aliases=aliases,
        summary=f"T5 v1.1 XXL: {max_tokens} tokens of 4096 numbers; captions are cleaned as the released samplers do",
        target=f"sora_plugins.t5.encoder:{target}",
        width=4096,
        max_tokens=max_tokens,
        dtypes=("fp32", "bf16", "int8"),
        weights=WEIGHTS,
        memory="sora_plugins.t5.memory:encode_memory",
        width_of="sora_plugins.t5.memory:width_of",
    )


@hookimpl
def sora_text_encoders() -> list[TextEncoderSpec]:
    """The released encoder, for the lengths of text that models were trained on."""
    return [
        _spec("t5-v1.1-xxl", "load", 300, aliases=("t5",)),
        _spec("t5-v1.1-xxl-200", "load_200", 200),
        _spec("t5-v1.1-xxl-120", "load_120", 120),
    ]
