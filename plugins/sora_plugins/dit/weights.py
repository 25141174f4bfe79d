"""From the tensors of a file to those of the networks here, whatever the file is called.

The names are the same, or those of diffusers. Files of pictures have flat patches, and files hold position tables,
which are computed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sora_cli.plugin.specs import StartWeights
from sora_plugins.stdit.adapt import IMAGE_ONLY, NULL_TEXT, adapt_tensors, new_text

from .diffusers_layout import from_diffusers

#: The table of DiT's and Latte's own checkpoints; `adapt_tensors` leaves out the others.
POSITIONS = "pos_embed_spatial"
#: What networks like PixArt-Sigma can have and no released file has.
SIGMA_ONLY = ("q_norm.", "k_norm.", "attn.sr.", "attn.norm.")


def convert(tensors: Mapping[str, Tensor], text_tokens: int) -> dict[str, Tensor]:
    """The tensors of a file for a network whose table of "no text" has so many rows."""
    adapted = adapt_tensors(tensors, text_tokens=text_tokens, has_spatial_blocks=False)
    adapted.pop(POSITIONS, None)
    return adapted


def map_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file for the network that it was made for."""
    named = from_diffusers(tensors)
    return convert(named, len(named[NULL_TEXT]) if NULL_TEXT in named else 1)


def start_dit(tensors: dict[str, Tensor], config: Mapping[str, Any]) -> StartWeights:
    """Weights that a DiT or Latte starts from. Those of another condition are left out, and the network's are new."""
    converted = convert(tensors, 1)
    is_text = config.get("condition", "text") == "text"
    if is_text == (NULL_TEXT in converted):
        return StartWeights(converted)
    kept = {name: tensor for name, tensor in converted.items() if not name.startswith("y_embedder.")}
    return StartWeights(kept, initial=("y_embedder.",))


def start_pixart(tensors: dict[str, Tensor], config: Mapping[str, Any]) -> StartWeights:
    """Weights that a PixArt starts from: the table of "no text" fits its captions, and of sizes it takes what it knows.

    Embeddings of sizes that a file lacks are new, and so are the norms of queries and keys and what compresses them.
    """
    converted = convert(tensors, config["model_max_length"])
    if not config.get("has_size_conditions"):
        converted = {name: tensor for name, tensor in converted.items() if not name.startswith(IMAGE_ONLY)}
    return StartWeights(converted, initial=(*IMAGE_ONLY, *SIGMA_ONLY, *new_text(tensors)))
