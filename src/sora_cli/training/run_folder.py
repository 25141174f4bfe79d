"""What a folder of a training run holds: complete checkpoints `step-N`, each with a manifest of its files."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PREFIX = "step-"
MANIFEST = "manifest.json"
RECORD = "record.json"
SUFFIX = ".safetensors"
#: Files of a checkpoint with weights: averaged over the updates, and as the last update left them.
AVERAGED, LAST = f"ema{SUFFIX}", f"model{SUFFIX}"
BLOCK_BYTES = 1 << 22


def complete_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first; folders that are being written or were damaged are left out."""
    return [path for path in _named(folder) if not list(problems_of(path, check_content=False))]


def damaged_checkpoints(folder: Path) -> dict[Path, str]:
    """The checkpoints newer than every complete one, and what is wrong with each: they were whole when named."""
    found: dict[Path, str] = {}
    for path in reversed(_named(folder)):
        problem = next(problems_of(path, check_content=False), None)
        if problem is None:
            break
        found[path] = problem
    return found


def _named(folder: Path) -> list[Path]:
    """The folders named as checkpoints, oldest first."""
    found = [path for path in folder.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdigit()]
    return sorted(found, key=step_of)


def step_of(path: Path) -> int:
    """The number of updates at which a checkpoint was made."""
    return int(path.name.removeprefix(PREFIX))


def problems_of(path: Path, *, check_content: bool) -> Iterator[str]:
    """What is missing, cut off or, with check_content, changed in a checkpoint since it was written."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        yield f"{MANIFEST}: {error}"
        return
    for name, wanted in manifest.items():
        file = path / name
        if not file.is_file():
            yield f"{name} is missing"
        elif file.stat().st_size != wanted["bytes"]:
            yield f"{name} has {file.stat().st_size} bytes instead of {wanted['bytes']}"
        elif check_content and describe(file) != wanted:
            yield f"{name} has changed since it was written"


def describe(file: Path) -> dict[str, Any]:
    """Size and checksum of a file, as a manifest holds them."""
    digest = hashlib.blake2b(digest_size=16)
    with file.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            digest.update(block)
    return {"bytes": file.stat().st_size, "blake2b": digest.hexdigest()}


def remove_leftovers(folder: Path) -> None:
    """Remove what processes left that were killed while they wrote or removed a checkpoint."""
    for path in (*folder.glob(f"{PREFIX}*.tmp"), *folder.glob(f"{PREFIX}*.old")):
        shutil.rmtree(path, ignore_errors=True)


def newest_checkpoint(path: Path) -> Path | None:
    """A checkpoint by itself, or the newest complete one of a run; None when there is none."""
    if path.name.startswith(PREFIX) and path in complete_checkpoints(path.parent):
        return path
    found = complete_checkpoints(path) if path.is_dir() else []
    return found[-1] if found else None
