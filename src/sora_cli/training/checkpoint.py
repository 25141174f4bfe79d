"""Checkpoints of a training run: whole or not there, verified when read, written beside the training.

A checkpoint is a folder `step-N` of safetensors files, a `record.json` and a manifest with the size and checksum of
every file. It is written as `step-N.tmp`, synced to the disk and renamed, so that a folder called `step-N` is complete.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sora_cli.errors import SoraError
from sora_cli.weights.save import save_tensors

from .run_folder import MANIFEST, PREFIX, RECORD, SUFFIX, complete_checkpoints, describe, problems_of

Files = Mapping[str, Mapping[str, Tensor]]


class Checkpointer:
    """Writes checkpoints into a folder. One is written at a time, by a thread of its own."""

    def __init__(
        self,
        folder: Path,
        *,
        keep: int | None = None,
        is_writer: bool = True,
        assemble: Callable[[Files], Files] = lambda pieces: pieces,
    ) -> None:
        """keep: complete checkpoints that stay, newest first; None for all.

        is_writer: False where another process writes what `assemble` puts together from the pieces of all of them.
        """
        if keep is not None and keep < 1:
            raise ValueError(f"at least one checkpoint must stay, not {keep}")
        self.folder, self.keep, self.is_writer, self._assemble = folder, keep, is_writer, assemble
        self._buffers: dict[tuple[str, str], Tensor] = {}
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def save(
        self,
        step: int,
        files: Files,
        record: Mapping[str, Any],
        documents: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Save the state as it is now, and return when it is copied; writing goes on in the background.

        files: name -> tensors, each a file; record: whatever JSON holds; documents: further JSON files by name. Waits
        for the checkpoint before, and raises its SoraError if it could not be written.
        """
        self.wait()
        copies = {name: self._copy(name, tensors) for name, tensors in files.items()}
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        every = {RECORD: record, **(documents or {})}
        texts = {name: json.dumps(dict(content), indent=2) for name, content in every.items()}
        self._thread = threading.Thread(target=self._write, args=(step, copies, texts), name=f"checkpoint {step}")
        self._thread.start()

    def wait(self) -> None:
        """Return when nothing is being written. Raises SoraError when the last checkpoint could not be written."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise SoraError(
                f"a checkpoint could not be written into {self.folder}: {error}",
                hint="earlier checkpoints are whole; make room, and go on from the newest",
            ) from error

    def _copy(self, file: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Copies in main memory, in buffers that are used again by the next checkpoint."""
        copies = {}
        for name, tensor in tensors.items():
            buffer = self._buffers.get((file, name))
            if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
                buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.device.type == "cuda")
                self._buffers[file, name] = buffer
            copies[name] = buffer.copy_(tensor.detach(), non_blocking=True)
        return copies

    def _write(self, step: int, files: Files, texts: Mapping[str, str]) -> None:
        path = self.folder / f"{PREFIX}{step}"
        temporary = path.with_name(f"{path.name}.tmp")
        try:
            files = self._assemble(files)  # first, because other processes wait for it
            if not self.is_writer:
                return
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            for name, tensors in files.items():
                save_tensors(temporary / f"{name}{SUFFIX}", tensors)
            for name, text in texts.items():
                (temporary / name).write_text(text + "\n", encoding="utf-8")
            manifest = {file.name: describe(file) for file in sorted(temporary.iterdir())}
            (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
            for file in (*temporary.iterdir(), temporary):
                _sync(file)
            _replace(temporary, path)
            _sync(self.folder)
            if self.keep is not None:
                for old in complete_checkpoints(self.folder)[: -self.keep]:
                    _remove(old)
        except Exception as error:
            self._error = error
            if self.is_writer:
                shutil.rmtree(temporary, ignore_errors=True)


def read_checkpoint(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """The files and the record of a checkpoint. Raises SoraError naming what is missing, cut off or changed."""
    if problems := list(problems_of(path, check_content=True)):
        advice = "without this folder the run goes on from the checkpoint before it"
        raise SoraError(f"the checkpoint {path} is damaged", hint="\n".join([*problems, advice]))
    try:
        files = {file.name.removesuffix(SUFFIX): load_file(file) for file in sorted(path.glob(f"*{SUFFIX}"))}
    except SafetensorError as error:
        raise SoraError(f"the checkpoint {path} is damaged: {error}") from error
    return files, json.loads((path / RECORD).read_text(encoding="utf-8"))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace(temporary: Path, path: Path) -> None:
    """Rename; a checkpoint of the same step makes way first."""
    if path.exists():
        _remove(path)
    temporary.rename(path)


def _remove(path: Path) -> None:
    """Under another name first, so that a folder that is half deleted is not taken for a checkpoint."""
    doomed = path.with_name(f"{path.name}.old")
    path.rename(doomed)
    shutil.rmtree(doomed)
