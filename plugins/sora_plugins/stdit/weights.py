"""From the tensors of a released file to those of the network here. The names are the same."""

from __future__ import annotations

from torch import Tensor

from .layers import RotaryEmbedding

#: Tables for the one size that a file was trained at; the network makes those of the size at hand.
POSITION_TABLES = ("pos_embed", "pos_embed_temporal")


def map_stdit1(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Leave the tables of positions of an STDiT out, which some copies of its files have and others do not."""
    return {name: tensor for name, tensor in tensors.items() if name not in POSITION_TABLES}


def map_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add the rotary frequencies of an STDiT2 or STDiT3 where a file lacks them: they follow from the head width and
    are never trained."""
    names = ("spatial_blocks.0.attn.q_norm.weight", "blocks.0.attn.q_norm.weight")
    norm = next((tensors[name] for name in names if name in tensors), None)
    if "rope.freqs" in tensors or norm is None:
        return tensors
    return {**tensors, "rope.freqs": RotaryEmbedding(len(norm)).formula(norm.device)}
