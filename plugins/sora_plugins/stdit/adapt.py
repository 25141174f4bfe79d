"""Starting weights out of other checkpoints: image models, earlier versions, other text lengths (training.md 14.5).

What a file is, is seen from its keys and shapes, whatever it is called.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sora_cli.plugin.specs import StartWeights
from sora_plugins.dit.diffusers_layout import from_diffusers, is_diffusers

from .weights import map_tensors

PATCH, NULL_TEXT = "x_embedder.proj.weight", "y_embedder.y_embedding"
#: Position tables, which are computed for the size at hand.
RECOMPUTED = ("pos_embed", "pos_embed_temporal", "temp_embed")
#: Conditions of PixArt that STDiT and STDiT3 do not have.
IMAGE_ONLY = ("csize_embedder.", "ar_embedder.")

#: What an STDiT2 has and PixArt has not, or not at every size.
NEW_IN_STDIT2 = (
    *IMAGE_ONLY,
    "attn_temp.",
    "scale_shift_table_temporal",
    "t_block_temp.",
    "fl_embedder.",
    "fps_embedder.",
    "q_norm.",
    "k_norm.",
    "rope.freqs",
)


def adapt_tensors(tensors: Mapping[str, Tensor], *, text_tokens: int, has_spatial_blocks: bool) -> dict[str, Tensor]:
    """The tensors of a file, also of one of diffusers, under the names and in the shapes of the network.

    text_tokens: rows of the network's table of "no text": of a shorter one in the file the last row is repeated.
    has_spatial_blocks: whether the network calls its blocks `spatial_blocks`.
    """
    adapted = {name: tensor for name, tensor in from_diffusers(tensors).items() if name not in RECOMPUTED}
    patch = adapted.get(PATCH)
    if patch is not None and patch.ndim == 4:  # of pictures: a patch has one frame
        adapted[PATCH] = patch[:, :, None]
    table = adapted.get(NULL_TEXT)
    if table is not None:
        rows = torch.arange(text_tokens).clamp(max=len(table) - 1)
        adapted[NULL_TEXT] = table[rows]
    if has_spatial_blocks and not any(name.startswith("spatial_blocks.") for name in adapted):
        adapted = {
            f"spatial_{name}" if name.startswith("blocks.") else name: tensor for name, tensor in adapted.items()
        }
    return adapted


def new_text(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Names of what may begin anew, as files of diffusers need not hold it: the table of "no text"."""
    return (NULL_TEXT,) if is_diffusers(tensors) else ()


def start_stdit1(tensors: dict[str, Tensor], config: Mapping[str, Any]) -> StartWeights:
    """Weights that an STDiT starts from. config: of the network.

    Out of an image model (PixArt-alpha) attention over frames keeps its initial values, and so adds nothing at first.
    """
    adapted = adapt_tensors(tensors, text_tokens=config["model_max_length"], has_spatial_blocks=False)
    if any(".attn_temp." in name for name in adapted):
        return StartWeights(adapted)
    kept = {name: tensor for name, tensor in adapted.items() if not name.startswith(IMAGE_ONLY)}
    return StartWeights(kept, initial=("attn_temp.", *new_text(tensors)))


def start_stdit2(tensors: dict[str, Tensor], config: Mapping[str, Any]) -> StartWeights:
    """Weights that an STDiT2 starts from. config: of the network.

    Out of an image model (PixArt-alpha) attention over frames, what it is told and the norms of queries and keys keep
    their initial values; size and ratio are known to those of 1024 pixels alone.
    """
    adapted = adapt_tensors(tensors, text_tokens=config["model_max_length"], has_spatial_blocks=False)
    if any(".attn_temp." in name for name in adapted):
        return StartWeights(map_tensors(adapted))
    return StartWeights(adapted, initial=(*NEW_IN_STDIT2, *new_text(tensors)))


def start_stdit3(tensors: dict[str, Tensor], config: Mapping[str, Any]) -> StartWeights:
    """Weights that an STDiT3 starts from. config: of the network.

    Out of an image model (PixArt-Sigma) temporal blocks, frame-rate embedding and the norms of queries and keys keep
    their initial values; temporal blocks start as the identity.
    """
    adapted = adapt_tensors(tensors, text_tokens=config["model_max_length"], has_spatial_blocks=True)
    if any(name.startswith("temporal_blocks.") for name in adapted):
        return StartWeights(map_tensors(adapted))
    kept = {name: tensor for name, tensor in adapted.items() if not name.startswith(IMAGE_ONLY)}
    new = ("temporal_blocks.", "fps_embedder.", "q_norm.", "k_norm.", "rope.freqs")
    return StartWeights(kept, initial=(*new, *new_text(tensors)))
