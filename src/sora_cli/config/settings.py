"""Settings as they are shown by `--dry-run` and stored in outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..redaction import redact

if TYPE_CHECKING:
    from .resolve import Resolved
    from .resolve_train import ResolvedTrain
    from .schema import GenerateConfig

STORED: Mapping[str, tuple[str, ...] | None] = {
    "prompt": ("prompts", "file", "negative", "start_index", "end_index", "refine", "refine_motion", "refine_model"),
    "shape": None,
    "output": ("crf", "upscaler"),
    "sampling": ("steps", "guidance", "scheduler", "scheduler_options", "seed", "num_samples"),
    "conditioning": None,
    "model": None,
}
"""What influences the picture, by section; None = all of it. Batch size, devices and offload only move rounding errors
(at least 50 dB apart), and where the file lies does not matter, so they are not stored."""


def settings_of(config: GenerateConfig, *, prompt: str | None = None, seed: int | None = None) -> dict[str, Any]:
    """The JSON-safe settings to store in an output; `resolve_generate(from_settings=...)` takes them back.

    prompt, seed: of one clip out of a run of several; the settings are then those that make this clip alone, with
    `config.prompt.refined` of this prompt.
    Settings that are not set are left out, except the scores of one clip.
    """
    everything = config.model_dump(mode="json")
    stored: dict[str, Any] = {}
    for section, names in STORED.items():
        content = {
            name: value
            for name, value in everything[section].items()
            if (names is None or name in names) and value is not None
        }
        if content:
            stored[section] = content
    if prompt is not None:
        asks = config.prompt.refine or config.prompt.refine_motion
        kept = ("negative", "refine", "refine_motion", *(["refine_model"] if asks else []))
        own = {name: value for name, value in stored["prompt"].items() if name in kept}
        refined = [one.model_dump(exclude_none=True) for one in config.prompt.refined]
        stored["prompt"] = {"prompts": [prompt], **own, **({"refined": refined} if refined else {})}
        # With nulls: a score that was switched off for this prompt must not come back from the model's preset.
        stored["conditioning"] = everything["conditioning"]
    if seed is not None:
        stored["sampling"] |= {"seed": seed, "num_samples": 1}
    return stored


def resolved_table(resolved: Resolved | ResolvedTrain) -> list[dict[str, Any]]:
    """One row for each setting: key, JSON-safe value without the secrets of web addresses, origin, in schema order."""
    return [
        {"key": key, "value": _shown(value), "origin": resolved.origins[key]}
        for key, value in leaves(resolved.config.model_dump(mode="json"))
    ]


def _shown(value: Any) -> Any:
    if isinstance(value, list):
        return [_shown(each) for each in value]
    return redact(value) if isinstance(value, str) else value


def leaves(nested: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Dotted keys and values. An empty mapping has no leaves."""
    for name, value in nested.items():
        if isinstance(value, Mapping) and prefix.count(".") < 2:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
