"""How clips were made, for reports: what all of them share, and what is each one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sora_cli.video.settings import HASH_KEY, find_settings

#: So many different values are listed for people.
FEW = 3


def clip_record(path: Path) -> dict[str, Any] | None:
    """How a clip was made, from the settings stored in it; None for one without any.

    prompt: as given; sent: the texts that were encoded, one for each part of a long video; refined: what a language
    model made of the prompt, None where none was asked. weights: by part, the fingerprint of their file.
    """
    found = find_settings(path)
    if found is None or "model" not in found:
        return None
    refined = found.get("config", {}).get("prompt", {}).get("refined") or [None]
    parts = ("model", "vae", "text_encoder")
    return {
        "prompt": found.get("prompt"),
        "sent": [found.get("text"), *found.get("later_texts", ())],
        "refined": refined[0],
        "negative_prompt": found.get("negative_prompt"),
        "seed": found.get("seed"),
        **{key: found.get("shape", {}).get(key) for key in ("height", "width", "num_frames", "fps", "save_fps")},
        **{part: found.get(part, {}).get("name") for part in parts},
        "weights": {part: found.get(part, {}).get("weights") for part in parts},
        "commits": found.get("commits"),
        "scheduler": found.get("scheduler", {}).get("name"),
        "steps": found.get("scheduler", {}).get("steps"),
        "guidance": found.get("scheduler", {}).get("guidance"),
        "sora": found.get("sora"),
        "settings": found[HASH_KEY],
    }


def provenance(paths: Sequence[Path]) -> dict[str, Any]:
    """How clips were made: {"shared": what several agree in, "clips": {path: the rest}, "unknown": [path]}."""
    records: dict[str, Mapping[str, Any]] = {}
    unknown = []
    for path in paths:
        record = clip_record(path)
        if record is None:
            unknown.append(str(path))
        else:
            records[str(path)] = record
    first = next(iter(records.values()), {})
    shared = {key: value for key, value in first.items() if all(one[key] == value for one in records.values())}
    if len(records) < 2:  # with a single clip nothing tells what is shared
        shared = {}
    own = {path: {key: value for key, value in one.items() if key not in shared} for path, one in records.items()}
    return {"shared": shared, "clips": own, "unknown": unknown}


def distinct(found: Mapping[str, Any]) -> dict[str, Any]:
    """Of `provenance`: by key the value of all clips, a list of a few different ones, or how many there are."""
    clips = [{**found["shared"], **own} for own in found["clips"].values()]
    summed: dict[str, Any] = {"clips": len(clips) + len(found["unknown"]), "without settings": len(found["unknown"])}
    for key in clips[0] if clips else ():
        values: list[Any] = []
        for clip in clips:
            if clip[key] not in values:
                values.append(clip[key])
        summed[key] = values[0] if len(values) == 1 else values if len(values) <= FEW else f"{len(values)} different"
    return summed
