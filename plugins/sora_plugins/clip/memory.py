"""Width and memory of encoded captions, from sizes alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sora_cli.plugin.specs import PartMemory

BASE = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
}
#: Bytes of one number.
WIDTHS = {"fp32": 4, "bf16": 2}


def width_of(config: Mapping[str, Any]) -> int:
    """Numbers of a caption. config: that of transformers, of the text half or of the whole, {} for ViT-B/32."""
    return int(config.get("text_config", config).get("hidden_size", BASE["hidden_size"]))


def encode_memory(config: Mapping[str, Any], *, prompts: int, dtype: str) -> PartMemory:
    """Weights and peak of encoding some captions in one call. config: that of transformers, {} for ViT-B/32."""
    config = config.get("text_config", config)
    sizes = {**BASE, **{key: config[key] for key in BASE if key in config}}
    width, inner, tokens = sizes["hidden_size"], sizes["intermediate_size"], sizes["max_position_embeddings"]
    linears = 4 * width * (width + 1) + 2 * width * inner + inner + width
    block = (linears + 4 * width) * WIDTHS[dtype]
    tables = ((sizes["vocab_size"] + tokens) * width + 2 * width) * WIDTHS[dtype]
    # Residual, norm, and either q, k, v with the scores (twice, for the softmax) or twice the inner layer.
    attention = 3 * width + 2 * sizes["num_attention_heads"] * tokens
    working = prompts * tokens * (3 * width + max(attention, 2 * inner)) * WIDTHS[dtype]
    return PartMemory(tables + sizes["num_hidden_layers"] * block, working, tables + 2 * block)
