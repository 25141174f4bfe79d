"""Memory of decoding, from sizes alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sora_cli.plugin.specs import PartMemory
from sora_plugins.sd_vae.memory import PLAIN, working_bytes
from sora_plugins.sd_vae.modes import SLAB_BYTES, SLABS_AT_ONCE, MemoryMode

PARAMETERS = 393_341_007
#: Frames of a piece as the temporal decoder sees it, padding included.
PIECE_FRAMES = 20
#: The same for the temporal part: 1243 MiB measured for a piece at 720p where 583 are counted.
CUDNN_FACTOR_3D = 2.15


def temporal_bytes(height: int, width: int, num_frames: int, dtype_bytes: int, memory: MemoryMode = PLAIN) -> int:
    """Peak of the temporal decoder, in its 256-channel convolutions over the frames of a piece.

    "plain": input, padded copy, output and residual. "low" and "tiled": input and residual, and slabs.
    """
    frames = min(PIECE_FRAMES, num_frames + 3)
    one_frame = 256 * (height // 8) * (width // 8) * dtype_bytes
    if memory.name == "plain":
        return int(CUDNN_FACTOR_3D * (3 * frames + frames + 2) * one_frame)
    return 2 * frames * one_frame + int(CUDNN_FACTOR_3D * SLABS_AT_ONCE * SLAB_BYTES)


def decode_memory(
    config: Mapping[str, Any],
    *,
    height: int,
    width: int,
    num_frames: int,
    frames_at_once: int,
    dtype_bytes: int,
    memory: MemoryMode = PLAIN,
) -> PartMemory:
    """Weights and peak of decoding a clip piece by piece, with the network of the released checkpoint.

    The spatial decoder comes after the temporal one, so the larger of both counts.
    """
    spatial = working_bytes(height, width, dtype_bytes, min(frames_at_once, num_frames), memory)
    working = max(temporal_bytes(height, width, num_frames, dtype_bytes, memory), spatial)
    return PartMemory(PARAMETERS * dtype_bytes, working)
