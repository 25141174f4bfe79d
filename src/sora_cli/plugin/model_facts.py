"""What `sora plugins show MODEL` adds to the fields of its spec: what it is sampled with, its parts, its page."""

from __future__ import annotations

import contextlib
import importlib.resources
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sora_cli.errors import SoraError, UsageError
from sora_cli.presets import list_presets, load_preset, model_named

from .manager import Plugins, load_attribute
from .specs import ModelSpec, Spec, TextEncoderSpec

if TYPE_CHECKING:
    from sora_cli.plugin.protocols import ClassNames
    from sora_cli.video.shapes import ClipShape


def model_facts(plugins: Plugins, spec: ModelSpec) -> dict[str, Any]:
    """The preset, defaults, prompts, parts and page of a model; JSON-safe but for specs and mappings of them."""
    presets = {info.kind: info.path for info in list_presets(plugins) if info.name == spec.name}
    parts = {"vae": ("vae", spec.vae), "text_encoder": ("text-encoder", spec.text_encoder)}
    parts |= {"upscaler": ("upscaler", spec.upscaler)} if spec.constraints.sampled_area else {}
    return {
        "trained": spec.constraints.trained,
        "prompt": prompt_of(plugins, spec),
        "defaults": defaults_of(plugins, spec),
        "preset": str(presets["models"]) if "models" in presets else None,
        "launch": str(presets["launch"]) if "launch" in presets else None,
        "more_presets": _presets_that_name(plugins, spec),
        "weights": {variant: spec.weights.get(variant) for variant in spec.variants},
        "parts": {part: _part(plugins, kind, name) for part, (kind, name) in parts.items()},
        "readme": None if spec.readme is None else str(readme_path(spec)),
    }


def readme_path(spec: ModelSpec) -> Path:
    """The page about a model. Raises SoraError when its plugin does not have what it names."""
    package, _, file = (spec.readme or "").partition(":")
    try:
        path = Path(str(importlib.resources.files(package) / file))
    except (ImportError, ValueError) as reason:
        raise SoraError(
            f"{spec.name}: {spec.readme} cannot be found: {reason}", hint="this is a fault of the plugin"
        ) from reason
    return path


def defaults_of(plugins: Plugins, spec: ModelSpec) -> dict[str, Any]:
    """What the model is sampled with where nothing else is said: its preset, its scheduler, the built-in values."""
    from sora_cli.config.resolve import BUILT_IN

    has_preset = any((info.kind, info.name) == ("models", spec.name) for info in list_presets(plugins))
    preset = load_preset("models", spec.name, plugins) if has_preset else {}
    sampling, shape = preset.get("sampling") or {}, default_shape(spec, preset.get("shape") or {})
    scheduler = sampling.get("scheduler") or spec.scheduler
    of_scheduler = getattr(_installed(plugins, "scheduler", scheduler), "default_steps", None)
    return {
        "size": None if shape is None else f"{shape.height}x{shape.width}",
        "frames": None if shape is None else shape.num_frames,
        **({} if shape is None or shape.num_frames == 1 else {"fps": shape.fps, "save_fps": shape.save_fps}),
        "scheduler": scheduler,
        "scheduler_options": dict(sampling.get("scheduler_options") or {}),
        "steps": sampling.get("steps") or of_scheduler,
        "guidance": sampling.get("guidance", BUILT_IN["sampling.guidance"]),
        "dtype": (preset.get("model") or {}).get("dtype", "auto"),
        "conditioning": dict(preset.get("conditioning") or {}),
    }


def default_shape(spec: ModelSpec, preset: Mapping[str, Any]) -> ClipShape | None:
    """The shape of a clip of the preset, filled up with the built-in values; None when those do not fit the model.

    preset: its section `shape`.
    """
    from sora_cli.config.resolve import BUILT_IN
    from sora_cli.config.schema import ShapeSection
    from sora_cli.video.shapes import resolve_shape

    rest = {key.partition(".")[2]: value for key, value in BUILT_IN.items() if key.startswith("shape.")}
    try:
        return resolve_shape(ShapeSection(**{**rest, **preset}), spec.constraints, rest["fps"])
    except UsageError:
        return None


def prompt_of(plugins: Plugins, spec: ModelSpec) -> str | None:
    """What a prompt of the model is, in words; None when its text encoder is not installed."""
    encoder = _installed(plugins, "text-encoder", spec.text_encoder)
    if not isinstance(encoder, TextEncoderSpec):
        return None
    if encoder.classes is None and encoder.max_tokens == 1:
        return "text, read as one vector"
    if encoder.classes is None:
        return f"text, of which {encoder.max_tokens} tokens are read"
    names = class_names(encoder)
    if names is None:
        return "the number of a class"
    return f"one of {len(names)} classes, by number or name; `sora plugins show {encoder.name}` lists them"


def class_names(encoder: TextEncoderSpec) -> list[str] | None:
    """The names of the classes that an encoder takes, by number; None without names."""
    assert encoder.classes is not None
    classes: ClassNames = load_attribute(encoder.classes, what=encoder.name)()
    return None if classes.names is None else list(classes.names)


def shown_to_people(record: Mapping[str, Any]) -> dict[str, Any]:
    """The same record shorter: what is empty is left out, and of further variants all that is as in the first."""
    short = dict(record)
    if record.get("kind") == "model":
        short["weights"] = {
            variant: weights or "none were released: give your own with --weights"
            for variant, weights in record["weights"].items()
        }
        first, *others = record["variants"].items()
        differences = {
            name: {key: value for key, value in config.items() if first[1].get(key) != value} or "as the first"
            for name, config in others
        }
        short["variants"] = {first[0]: first[1], **differences}
        sizes = record["constraints"]["trained_sizes"]
        words = [f"{size['resolution']} {_lengths(size['max_frames'])}" for size in sizes]
        short["constraints"] = {**record["constraints"], "trained": None, "trained_sizes": words}
    return _without_empty(short)


def _lengths(max_frames: int) -> str:
    return "pictures" if max_frames == 1 else f"up to {max_frames} frames"


def _without_empty(record: Mapping[str, Any]) -> dict[str, Any]:
    inner = {key: _without_empty(value) if isinstance(value, Mapping) else value for key, value in record.items()}
    return {key: value for key, value in inner.items() if value not in (None, "", [], {})}


def _presets_that_name(plugins: Plugins, spec: ModelSpec) -> list[str]:
    """The presets for `--preset` that choose the model."""
    chosen = {}
    for info in list_presets(plugins):
        if info.kind == "generate":
            with contextlib.suppress(SoraError):  # `sora presets show` says what is wrong with it
                chosen[info.name] = model_named(info)
    return [name for name, model in chosen.items() if model in (spec.name, *spec.aliases)]


def _installed(plugins: Plugins, kind: str, name: str) -> Spec | None:
    """The spec of a part; None when no plugin has it, or several claim names of its kind."""
    try:
        return plugins.get(kind, name)
    except SoraError:
        return None


def _part(plugins: Plugins, kind: str, name: str) -> dict[str, Any]:
    """Name, summary and weights of a part; only the name when it is not installed."""
    spec = _installed(plugins, kind, name)
    if spec is None:
        return {"name": name, "summary": "not installed"}
    return {"name": name, "summary": spec.summary, "weights": getattr(spec, "weights", None)}
