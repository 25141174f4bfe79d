"""Writing safetensors files that others may read as far as they may read other new files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a file in place; beside and rename where an earlier one must survive. Raises OSError."""
    path.touch()
    mode = path.stat().st_mode  # the library makes files that nobody else can read
    try:
        save_file(dict(tensors), path, metadata=None if metadata is None else dict(metadata))
    except SafetensorError as error:  # how it reports a failed write
        raise OSError(str(error)) from error
    path.chmod(mode)
