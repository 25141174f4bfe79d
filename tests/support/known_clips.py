"""Clips of known frames, without any loss."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sora_cli.video.lossless import LosslessFiles


def noise(frames: int = 4, size: tuple[int, int] = (32, 48), seed: int = 0) -> np.ndarray:
    """(T, H, W, 3) in 20..199, so that something can be added."""
    return np.random.default_rng(seed).integers(20, 200, (frames, *size, 3), dtype=np.uint8)


def lossless(path: Path, frames: np.ndarray, fps: float = 8.0) -> Path:
    """Write frames; the ending of the path is .mkv, or .png for a single frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with LosslessFiles({"clip": path.with_suffix("")}, fps, len(frames)) as files:
        files.add({"clip": frames})
    assert files.paths["clip"] == path
    return path
