"""Width and memory of encoded prompts, from sizes alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sora_cli.plugin.specs import PartMemory

XXL = {"vocab_size": 32128, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
TOKENS = 300
#: Bytes of one weight of a linear layer, and of one number in activations and the other weights.
WIDTHS = {"fp32": (4.0, 4), "bf16": (2.0, 2), "int8": (1.0, 2)}


def width_of(config: Mapping[str, Any]) -> int:
    """Numbers of each token. config: that of transformers, {} for XXL."""
    return int(config.get("d_model", XXL["d_model"]))


def encode_memory(config: Mapping[str, Any], *, prompts: int, dtype: str) -> PartMemory:
    """Weights and peak of encoding some prompts of 300 tokens in one call. config: that of transformers, {} for XXL."""
    sizes = {**XXL, **{key: config[key] for key in XXL if key in config}}
    width, inner, heads = sizes["d_model"], sizes["d_kv"] * sizes["num_heads"], sizes["num_heads"]
    weight_bytes, number_bytes = WIDTHS[dtype]
    linears = 4 * width * inner + 3 * width * sizes["d_ff"]
    block = int(linears * weight_bytes)
    table = sizes["vocab_size"] * width * number_bytes
    # Residual, norm, and either q, k, v with the scores (twice, for the softmax) or the three feed-forward tensors.
    attention = 3 * inner + 2 * heads * TOKENS
    feed_forward = 3 * sizes["d_ff"]
    working = prompts * TOKENS * (3 * width + max(attention, feed_forward)) * number_bytes
    if dtype == "int8":  # one weight at a time is widened
        working += width * max(sizes["d_ff"], inner) * number_bytes
    return PartMemory(table + sizes["num_layers"] * block, working, table + 2 * block)
