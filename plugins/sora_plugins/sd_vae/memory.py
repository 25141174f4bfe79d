"""Memory of decoding a frame, from sizes alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sora_cli.plugin.specs import PartMemory

from .modes import CHUNK, SLAB_BYTES, SLABS_AT_ONCE, MemoryMode

PARAMETERS, TEMPORAL_PARAMETERS = 83_653_863, 97_742_847
#: cuDNN keeps inputs and outputs in another layout beside ours: measured on an H100 (torch 2.11, bf16, 720p)
#: a frame took 2231 MiB where 1350 are counted, and two and four frames as much each.
CUDNN_FACTOR = 1.66
PLAIN = MemoryMode()


def frame_bytes(height: int, width: int, dtype_bytes: int, frames_at_once: int = 1) -> int:
    """Peak of decoding some frames together.

    Before the last level: the doubled 256-channel features and their convolution at full size, and what they came from.
    """
    return frames_at_once * 3 * 256 * height * width * dtype_bytes


def working_bytes(
    height: int, width: int, dtype_bytes: int, frames_at_once: int = 1, memory: MemoryMode = PLAIN
) -> int:
    """Peak of decoding some frames together, with the copies of the GPU's library.

    "low": input and hidden features of a block with 128 channels at full size; the library sees slabs only. "tiled": a
    tile, and the frames put together. Counted; only "plain" was measured on a GPU.
    """
    match memory.name:
        case "low":
            features = frames_at_once * 2 * 128 * height * width * dtype_bytes
            return features + int(CUDNN_FACTOR * SLABS_AT_ONCE * SLAB_BYTES)
        case "tiled":
            tile = frame_bytes(min(height, memory.tile), min(width, memory.tile), dtype_bytes, frames_at_once)
            return int(CUDNN_FACTOR * tile) + frames_at_once * 3 * height * width * dtype_bytes
    return int(CUDNN_FACTOR * frame_bytes(height, width, dtype_bytes, frames_at_once))


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
    """Weights and peak of decoding a clip, frame by frame, with the network of the released checkpoints."""
    frames = min(num_frames, frames_at_once)
    return PartMemory(PARAMETERS * dtype_bytes, working_bytes(height, width, dtype_bytes, frames, memory))


def temporal_decode_memory(
    config: Mapping[str, Any], *, height: int, width: int, num_frames: int, frames_at_once: int, dtype_bytes: int
) -> PartMemory:
    """As `decode_memory` with the temporal decoder, whose chunks have a fixed number of frames.

    Its peak is that of as many single frames: a block over time with the doubled features that it came from.
    """
    frames = min(num_frames, CHUNK)
    return PartMemory(TEMPORAL_PARAMETERS * dtype_bytes, working_bytes(height, width, dtype_bytes, frames))
