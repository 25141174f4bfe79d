"""Device memory of a call of a network, from sizes alone, so that a run is planned before torch is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sora_cli.plugin.specs import PartMemory
from sora_plugins.stdit.memory import BLOCKS_ON_DEVICE, scalar_parameters

#: Fields of a configuration that older files may lack.
DEFAULTS: Mapping[str, Any] = {"mlp_ratio": 4.0, "condition": "text", "model_max_length": 1}


def dit_memory(
    config: Mapping[str, Any], *, latent_shape: tuple[int, int, int, int], rows: int, text_tokens: int, dtype_bytes: int
) -> PartMemory:
    """Memory of sampling with a DiT or Latte; arguments as of `ModelSpec.memory`."""
    config = {**DEFAULTS, **config}
    width, hidden = config["hidden_size"], int(config["hidden_size"] * config["mlp_ratio"])
    block = _attention(width) + _mlp(width, hidden) + (width + 1) * 6 * width
    classes = str(config["condition"]).rpartition("_")[2]
    tables = 0
    if classes.isdecimal():
        condition = (int(classes) + (config["class_dropout_prob"] > 0)) * width
    else:
        condition, tables = _caption(config), config["caption_channels"]
    rest = condition + (width + 1) * 2 * width  # of the final layer
    vectors = rows * (6 * width + 4 * width)  # modulation of a block, and what it is made from
    return _memory(
        config, block, rest, tables, latent_shape, rows, dtype_bytes, 2 if config["learn_sigma"] else 1, vectors
    )


def pixart_memory(
    config: Mapping[str, Any], *, latent_shape: tuple[int, int, int, int], rows: int, text_tokens: int, dtype_bytes: int
) -> PartMemory:
    """Memory of sampling with a PixArt; arguments as of `ModelSpec.memory`."""
    config = {**DEFAULTS, **config}
    width, hidden = config["hidden_size"], int(config["hidden_size"] * config["mlp_ratio"])
    block = 2 * _attention(width) + _mlp(width, hidden) + 6 * width
    block += 2 * (width // config["num_heads"]) if config.get("qk_norm") else 0
    rest = _caption(config) + (width + 1) * 6 * width + 2 * width  # text, modulation of all blocks, the final layer's
    rest += 2 * scalar_parameters(width // 3) if config.get("has_size_conditions") else 0
    tables = config["model_max_length"] * config["caption_channels"]
    # Keys and values of the text in all blocks, made once per prompt, and the projected text.
    text = rows * text_tokens * width * (2 * config["depth"] + 1)
    return _memory(config, block, rest, tables, latent_shape, rows, dtype_bytes, 2 if config["pred_sigma"] else 1, text)


def _attention(width: int) -> int:
    return 4 * (width + 1) * width


def _mlp(width: int, hidden: int) -> int:
    return 2 * width * hidden + hidden + width


def _caption(config: Mapping[str, Any]) -> int:
    width = config["hidden_size"]
    return int((config["caption_channels"] + 1) * width + (width + 1) * width)


def _memory(
    config: Mapping[str, Any],
    block: int,
    rest: int,
    tables: int,
    latent_shape: tuple[int, int, int, int],
    rows: int,
    dtype_bytes: int,
    outputs: int,
    more: int,
) -> PartMemory:
    """Memory of a network. block, rest: parameters of a block, and of what is not in blocks but for patches, timestep
    and output. tables: numbers that stay in float32. outputs: channels that come out for one that goes in. more:
    numbers that a call needs beside the features of its tokens.
    """
    width, depth = config["hidden_size"], config["depth"]
    patch = math.prod(config["patch_size"])
    rest += (patch * config["in_channels"] + 1) * width + scalar_parameters(width)
    rest += (width + 1) * patch * config["in_channels"] * outputs
    positions = math.prod(latent_shape[2:]) // math.prod(config["patch_size"][1:])
    tokens = rows * latent_shape[1] // config["patch_size"][0] * positions
    latents = 4 * rows * math.prod(latent_shape) * (1 + outputs)
    working = (tokens * width * _units(config) + more) * dtype_bytes + 4 * positions * width + latents
    rest_bytes = rest * dtype_bytes + tables * 4
    return PartMemory(
        weights=depth * block * dtype_bytes + rest_bytes,
        working=working,
        block=BLOCKS_ON_DEVICE * block * dtype_bytes + rest_bytes,
        all_blocks=depth * block * dtype_bytes,
    )


def _units(config: Mapping[str, Any]) -> int:
    """Numbers per channel and token at the moment when attention or the MLP needs most."""
    # What goes into the block, the features and their modulated form; q, k and v as one, and laid out by heads.
    attention = 3 + 3 + 3
    # The first three; what goes into GELU and comes out.
    return max(attention, math.ceil(3 + 2 * config["mlp_ratio"]))
