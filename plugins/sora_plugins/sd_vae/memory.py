"""Memory of decoding a frame, from sizes alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sora_cli.plugin.specs import PartMemory

PARAMETERS = 83_653_863
#: cuDNN keeps inputs and outputs in another layout beside ours: measured on an H100 (torch 2.11, bf16, 720p)
#: a frame took 2231 MiB where 1350 are counted, and two and four frames as much each.
CUDNN_FACTOR = 1.66


def frame_bytes(height: int, width: int, dtype_bytes: int, frames_at_once: int = 1) -> int:
    """Peak of decoding some frames together.

    Before the last level: the doubled 256-channel features and their convolution at full size, and what they came from.
    """
    return frames_at_once * 3 * 256 * height * width * dtype_bytes


def decode_memory(
    config: Mapping[str, Any], *, height: int, width: int, num_frames: int, frames_at_once: int, dtype_bytes: int
) -> PartMemory:
    """Weights and peak of decoding a clip, frame by frame, with the network of the released checkpoints."""
    frames = min(num_frames, frames_at_once)
    working = int(CUDNN_FACTOR * frame_bytes(height, width, dtype_bytes, frames))
    return PartMemory(PARAMETERS * dtype_bytes, working)
