"""Where settings come from besides the command line: environment, files at the usual places, presets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..presets import PresetPlugins, load_preset
from .files import project_file, read_yaml, user_file
from .layers import Layer, Problem, Setting, document_layer, environment_layer, find_setting, mapping_layer, settings_in
from .schema import GenerateConfig
from .train_schema import TrainConfig
from .vae_schema import VaeTrainConfig


def outer_layers(
    environ: Mapping[str, str],
    cwd: Path,
    settings: Mapping[str, Setting],
    problems: list[Problem],
    config_file: Path | None = None,
    from_settings: Mapping[str, Any] | None = None,
) -> list[Layer]:
    """What the environment, a named file, a video and the files at the usual places say, strongest first.

    The environment and the usual files serve all commands: settings of others are known, and left out.
    """
    known = {**settings, **every_setting()}  # its own first, for advice on misspelt ones
    layers = [environment_layer(environ, known, problems, own=settings)]
    if config_file is not None:
        layers.append(document_layer(read_yaml(config_file), settings, f"--config {config_file}", problems))
    if from_settings is not None:
        layers.append(mapping_layer(from_settings.get("config", from_settings), settings, "--from", problems))
    project = project_file(cwd)
    if project is not None:
        shown = project.relative_to(cwd) if project.parent == cwd else project
        layers.append(document_layer(read_yaml(project), known, f"file {shown}", problems))
    user = user_file(environ)
    if user is not None:
        layers.append(document_layer(read_yaml(user), known, f"user file {user}", problems))
    return [layer.without([key for key in layer.values if find_setting(key, settings)[1] is None]) for layer in layers]


def every_setting() -> dict[str, Setting]:
    """The settings of all commands."""
    return {
        key: setting
        for config in (VaeTrainConfig, TrainConfig, GenerateConfig)
        for key, setting in settings_in(config).items()
    }


def preset_layer(kind: str, name: str | None, settings: Mapping[str, Setting], plugins: PresetPlugins) -> list[Layer]:
    """The preset that was named, if any."""
    if name is None:
        return []
    return [mapping_layer(load_preset(kind, name, plugins), settings, f"preset {name}", [])]
