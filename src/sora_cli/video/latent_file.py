"""Files of latents: one safetensors tensor (C, L, h, w), written and read in pieces along L, with what it codes."""

from __future__ import annotations

import contextlib
import json
import math
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from sora_cli.errors import SoraError
from sora_cli.files import claimed

from .io import write_failed

KEY, ABOUT = "latents", "sora"
#: What must be known of latents to decode them.
DESCRIBED: dict[str, Any] = {"vae": str, "num_frames": int, "fps": (int, float), "height": int, "width": int}
#: Number format -> its name in the file, and the whole numbers of its size, since NumPy has no bfloat16.
FORMATS = {
    torch.float32: ("F32", torch.int32, np.int32),
    torch.bfloat16: ("BF16", torch.int16, np.int16),
    torch.float16: ("F16", torch.int16, np.int16),
}
#: A safetensors file starts with the length of its header, which is filled up to a multiple of this.
ALIGNMENT = 8


@dataclass(frozen=True)
class LatentFile:
    """An opened file of latents. about: what was written with it; shape: (C, L, h, w)."""

    path: Path
    about: Mapping[str, Any]
    shape: tuple[int, int, int, int]
    _file: Any

    def read(self, start: int, stop: int) -> Tensor:
        """Latent frames, (1, C, stop - start, h, w) float32."""
        try:
            found: Tensor = self._file.get_slice(KEY)[:, start:stop]
        except SafetensorError as error:
            raise SoraError(f"cannot read {self.path}: {error}", hint="encode the clip again") from error
        return found[None].float()


@contextlib.contextmanager
def open_latents(path: Path) -> Iterator[LatentFile]:
    """Open a file of latents. Raises SoraError for one that is none, or is damaged."""
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(safe_open(path, "pt"))
            described = (file.metadata() or {}).get(ABOUT)
            if described is None:
                raise ValueError("it does not say what it codes")
            about = json.loads(described)
            for name, kinds in DESCRIBED.items():
                value = about[name]
                if not isinstance(value, kinds) or (not isinstance(value, str) and value <= 0):
                    raise ValueError(f"its {name} is {about[name]!r}")
            shape = tuple(file.get_slice(KEY).get_shape())
            if len(shape) != 4:
                raise ValueError(f"its latents have {len(shape)} axes")
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise SoraError(f"{path} is no file of latents: {error}", hint="`sora vae encode` writes them") from error
        yield LatentFile(path, about, shape, file)


class LatentWriter:
    """Where the pieces of a file go, one after the other."""

    def __init__(self, numbers: Any, dtype: torch.dtype) -> None:
        self._numbers, self._dtype, self.written = numbers, dtype, 0

    def add(self, piece: Tensor) -> None:
        """The next latent frames, (1, C, some, h, w)."""
        count = piece.shape[2]
        whole = piece[0].to("cpu", self._dtype).contiguous().view(FORMATS[self._dtype][1]).numpy()
        self._numbers[:, self.written : self.written + count] = whole
        self.written += count


@contextlib.contextmanager
def write_latents(
    path: Path, shape: tuple[int, int, int, int], about: Mapping[str, Any], dtype: torch.dtype = torch.float32
) -> Iterator[LatentWriter]:
    """A writer of (C, L, h, w) latents; the file appears when all pieces are there, or not at all.

    The file is mapped while it is written, so memory does not grow with L. Raises SoraError when it cannot be written.
    """
    name, _, whole = FORMATS[dtype]
    size = math.prod(shape) * np.dtype(whole).itemsize
    described = {
        "__metadata__": {ABOUT: json.dumps(dict(about), sort_keys=True)},
        KEY: {"dtype": name, "shape": list(shape), "data_offsets": [0, size]},
    }
    header = json.dumps(described, separators=(",", ":")).encode()
    header += b" " * (-len(header) % ALIGNMENT)
    partial = path.with_name(f"{path.name}.partial")
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(claimed(partial))
            stack.callback(partial.unlink, missing_ok=True)
            with partial.open("wb") as file:
                file.write(struct.pack("<Q", len(header)) + header)
                # Room for all of it now: writing to a mapped file that a full disk cuts off would end the process.
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, len(header) + 8 + size)
                else:  # macOS
                    file.truncate(len(header) + 8 + size)
            numbers = np.memmap(partial, dtype=whole, mode="r+", offset=len(header) + 8, shape=shape)
            writer = LatentWriter(numbers, dtype)
            yield writer
            if writer.written != shape[1]:
                raise SoraError(f"{path}: {writer.written} of {shape[1]} latent frames came out")
            numbers.flush()
            del numbers, writer
            os.replace(partial, path)
        except OSError as error:
            raise write_failed(path, error) from error
