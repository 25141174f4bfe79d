"""From the tensors of a released STDiT3 file to those of the network here. The names are the same."""

from __future__ import annotations

from torch import Tensor

from .layers import RotaryEmbedding


def map_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add the rotary frequencies where a file lacks them: they follow from the head width and are never trained."""
    norm = tensors.get("spatial_blocks.0.attn.q_norm.weight")
    if "rope.freqs" in tensors or norm is None:
        return tensors
    return {**tensors, "rope.freqs": RotaryEmbedding(len(norm)).formula(norm.device)}
