"""Device memory of a call of a network, from sizes alone. Pure Python, so that a run is planned before torch is loaded.

The networks go through a block in pieces (network.py, `pieces`), so beside the features of all tokens there are only
the intermediates of one piece. Units below: one unit is `width` numbers per token of what they count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from sora_cli.plugin.specs import PartMemory

#: As network.py on a GPU; a test compares them.
TOKENS_AT_ONCE = 32768
#: Features of all tokens at a time: those before and after a block.
FEATURES = 2
#: Blocks whose weights are on the device when blocks are fetched one by one: the one that runs and the next.
BLOCKS_ON_DEVICE = 2


def network_memory(
    config: Mapping[str, Any],
    *,
    latent_shape: tuple[int, int, int, int],
    rows: int,
    text_tokens: int,
    dtype_bytes: int,
    tokens_at_once: int = TOKENS_AT_ONCE,
) -> PartMemory:
    """Memory of sampling. config: fields of config.json of any network of the family; text_tokens: per row, padding
    left out."""
    count, block, rest = parameters(config)
    # The table of "no text" stays in float32.
    rest_bytes = rest * dtype_bytes + config["model_max_length"] * config["caption_channels"] * 4
    return PartMemory(
        weights=count * block * dtype_bytes + rest_bytes,
        working=_working(config, count, latent_shape, rows, text_tokens, dtype_bytes, tokens_at_once),
        block=BLOCKS_ON_DEVICE * block * dtype_bytes + rest_bytes,
        all_blocks=count * block * dtype_bytes,
    )


def parameters(config: Mapping[str, Any]) -> tuple[int, int, int]:
    """The number of blocks, and numbers of parameters: of one block, and of all that is not in blocks."""
    family, width, depth = config.get("model_type", "STDiT3"), config["hidden_size"], config["depth"]
    hidden, head = int(width * config["mlp_ratio"]), width // config["num_heads"]
    attention = 4 * (width + 1) * width
    norms = 2 * head if config.get("qk_norm") else 0
    block = attention + 2 * width * hidden + hidden + width + 6 * width  # text, MLP and table
    patch, channels, text = math.prod(config["patch_size"]), config["in_channels"], config["caption_channels"]
    outputs = patch * channels * (2 if config["pred_sigma"] else 1)
    rest = (patch * channels + 1) * width  # patches
    rest += scalar_parameters(width)  # timestep
    rest += (width + 1) * 6 * width  # modulation of all blocks
    rest += (text + 1) * width + (width + 1) * width  # text
    rest += 2 * width + (width + 1) * outputs  # final layer
    if family == "STDiT3":
        return (
            2 * depth,
            block + attention + norms,
            rest + scalar_parameters(width) + head // 2,
        )  # frame rate, rotary frequencies
    block += 2 * attention
    if family == "STDiT":
        return depth, block, rest
    rest += 2 * scalar_parameters(width // 3) + 2 * scalar_parameters(width)  # size, its ratio; length, frame rate
    rest += (width + 1) * 3 * width + head // 2  # modulation over frames, rotary frequencies
    return depth, block + 3 * width + 2 * norms, rest


def scalar_parameters(width: int) -> int:
    """Parameters of what embeds one number."""
    return 257 * width + (width + 1) * width


def _working(
    config: Mapping[str, Any],
    blocks: int,
    latent_shape: tuple[int, int, int, int],
    rows: int,
    text_tokens: int,
    dtype_bytes: int,
    tokens_at_once: int,
) -> int:
    width = config["hidden_size"]
    frames, height, columns = (
        -(-side // patch) for side, patch in zip(latent_shape[1:], config["patch_size"], strict=True)
    )
    positions = height * columns
    tokens = rows * frames * positions
    piece = min(tokens, max(tokens_at_once, frames, positions))
    # STDiT and STDiT2 go through a block twice; in pieces the second time writes over what the first time made.
    between = 1 if piece == tokens and config.get("model_type", "STDiT3") != "STDiT3" else 0
    features = (FEATURES + between) * tokens * width * dtype_bytes
    # Keys and values of the text in all blocks, made once per prompt, and the projected text.
    text = rows * text_tokens * width * dtype_bytes * (2 * blocks + 1)
    tables = 4 * positions * width
    latents = 4 * rows * math.prod(latent_shape) * (3 if config["pred_sigma"] else 2)
    return features + piece * width * _piece_units(config, dtype_bytes) + text + tables + latents


def _piece_units(config: Mapping[str, Any], dtype_bytes: int) -> int:
    """Bytes per channel and token of a piece at the moment when attention over frames or the MLP needs most."""
    # Rotating k: the modulated features, q, k and v as one, normed q and k, and rotated q are there; k is being widened
    # to float32 and multiplied, then rounded.
    widened = 4 if dtype_bytes == 4 else 4 + 4 + dtype_bytes
    rotating = (1 + 3 + 2 + 1) * dtype_bytes + widened
    # GELU: the features, their modulated form, and what goes in and comes out.
    mlp = int((2 + 2 * config["mlp_ratio"]) * dtype_bytes)
    return mlp if config.get("model_type") == "STDiT" else max(rotating, mlp)  # STDiT rotates nothing
