"""What weights were trained with, kept in them or in the config.json beside them, so that sampling can follow it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sora_cli.training.run_folder import SUFFIX, newest_checkpoint

from .fetch import find_cached, split_hub_id
from .locate import CONFIG, SUBFOLDERS, TRAINED_WITH, WHOLE_FILES
from .lora import ADAPTER

#: Settings that a run keeps, and how names of further ones begin. Others in a file are not looked at.
KEPT = ("model.name", "model.variant", "model.vae", "model.text_encoder", "sampling.scheduler")
OPTIONS = ("model.options.", "sampling.scheduler_options.")


def trained_with(place: str) -> dict[str, Any]:
    """Settings of the training that made the weights at a place (a file, folder, training run or hub id), by their
    names in `sora generate`: those of KEPT, and options. {} where nothing tells of them.

    What is wrong with the place is said when the weights are loaded.
    """
    for file in _files_of(place):
        found = _record_in(file)
        if isinstance(found, Mapping) and all(isinstance(found.get(key), str) for key in KEPT):
            return {key: value for key, value in found.items() if key in KEPT or key.startswith(OPTIONS)}
    return {}


def _record_in(file: Path) -> Any:
    """What a file with weights or a config.json says of its training; None where it says nothing or is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        if file.suffix == SUFFIX:
            with safe_open(file, framework="np") as opened:  # does not load torch
                return json.loads((opened.metadata() or {}).get(TRAINED_WITH, "null"))
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, SafetensorError):
        return None
    return content.get(TRAINED_WITH) if isinstance(content, Mapping) else None


def _files_of(place: str) -> list[Path]:
    """Files that may tell of the training of the weights of a place, the likeliest first."""
    path = Path(os.path.expanduser(place))
    hub_id = split_hub_id(place)
    if not path.exists() and hub_id is not None:
        cached = find_cached(*hub_id, (CONFIG,))
        return [] if cached is None else list(cached.paths)
    checkpoint = newest_checkpoint(path)
    if checkpoint is not None:
        return [checkpoint / CONFIG]
    if path.is_file():
        files = [path] if path.suffix == SUFFIX else []
        return [*files, *(each for each in [path.parent / CONFIG] if each.is_file())]
    folders = [path, *(path / name for name in SUBFOLDERS)]
    names = (CONFIG, ADAPTER, *(name for name in WHOLE_FILES if name.endswith(SUFFIX)))
    return [file for folder in folders for name in names if (file := folder / name).is_file()]
