"""Memory of decoding, from sizes alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sora_cli.plugin.specs import PartMemory
from sora_plugins.sd_vae.memory import CUDNN_FACTOR, frame_bytes

PARAMETERS = 393_341_007
#: Frames of a piece as the temporal decoder sees it, padding included.
PIECE_FRAMES = 20
#: The same for the temporal part: 1243 MiB measured for a piece at 720p where 583 are counted.
CUDNN_FACTOR_3D = 2.15


def decode_memory(
    config: Mapping[str, Any], *, height: int, width: int, num_frames: int, frames_at_once: int, dtype_bytes: int
) -> PartMemory:
    """Weights and peak of decoding a clip piece by piece, with the network of the released checkpoint.

    The temporal decoder is at its peak in the 256-channel convolutions over the frames of a piece: input, padded copy,
    output and residual. The spatial decoder comes after it.
    """
    positions = (height // 8) * (width // 8)
    frames = min(PIECE_FRAMES, num_frames + 3)
    temporal = (3 * frames + frames + 2) * 256 * positions * dtype_bytes
    spatial = frame_bytes(height, width, dtype_bytes, min(frames_at_once, num_frames))
    working = int(max(CUDNN_FACTOR_3D * temporal, CUDNN_FACTOR * spatial))
    return PartMemory(PARAMETERS * dtype_bytes, working)
