"""What weights were trained with, kept in the config.json beside them, so that sampling can follow it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sora_cli.training.run_folder import newest_checkpoint

from .fetch import find_cached, split_hub_id
from .locate import CONFIG, SUBFOLDERS, TRAINED_WITH

#: Settings that a run keeps, and how names of further ones begin. Others in a file are not looked at.
KEPT = ("model.name", "model.variant", "model.vae", "model.text_encoder", "sampling.scheduler")
OPTIONS = ("model.options.", "sampling.scheduler_options.")


def trained_with(place: str) -> dict[str, Any]:
    """Settings of the training that made the weights at a place (a file, folder, training run or hub id), by their
    names in `sora generate`: those of KEPT, and options. {} where nothing tells of them.

    What is wrong with the place is said when the weights are loaded.
    """
    path = _config_of(place)
    if path is None:
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    found = content.get(TRAINED_WITH) if isinstance(content, Mapping) else None
    if not isinstance(found, Mapping) or not all(isinstance(found.get(key), str) for key in KEPT):
        return {}
    return {key: value for key, value in found.items() if key in KEPT or key.startswith(OPTIONS)}


def _config_of(place: str) -> Path | None:
    """The config.json that lies beside the weights of a place."""
    path = Path(os.path.expanduser(place))
    hub_id = split_hub_id(place)
    if not path.exists() and hub_id is not None:
        cached = find_cached(*hub_id, (CONFIG,))
        return None if cached is None else cached.paths[0]
    checkpoint = newest_checkpoint(path)
    if checkpoint is not None:
        folders = [checkpoint]
    elif path.is_file():
        folders = [path.parent]
    else:
        folders = [path, *(path / name for name in SUBFOLDERS)]
    return next((folder / CONFIG for folder in folders if (folder / CONFIG).is_file()), None)
