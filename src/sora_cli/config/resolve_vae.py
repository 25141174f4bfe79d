"""From what the user said to one complete configuration of `sora vae train`, with the origin of every value.

The order is that of `resolve_train`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..launch.torchrun import check_hardware
from .checks import complete_options, naming, validated
from .layers import Layer, Problem, drop_dependent, flag_layer, merge, nest, raise_problems, settings_in
from .resolve import Plugins, canonical
from .resolve_train import ResolvedTrain, with_sets
from .settings import leaves
from .sources import outer_layers, preset_layer
from .vae_schema import VaeTrainConfig

NAMED_PARTS = {
    "vae.name": "vae",
    "loss.perceptual": "metric",
    "discriminator.name": "discriminator",
    "hardware.parallel": "parallelism",
}
VAE_DEPENDENT = ("vae.weights", "vae.config", "vae.freeze", "vae.train_only")


def resolve_vae_train(
    flags: Mapping[str, Mapping[str, Any]],
    *,
    config_file: Path | None = None,
    preset: str | None = None,
    sets: Sequence[str] = (),
    plugins: Plugins,
    check_devices: bool = True,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> ResolvedTrain:
    """Resolve the settings of `sora vae train`; arguments as of `resolve_train`. Raises UsageError."""
    settings = settings_in(VaeTrainConfig)
    environ = os.environ if environ is None else environ
    problems: list[Problem] = []
    layers = [
        with_sets(flag_layer(flags, (), settings, problems), sets, settings, problems),
        *outer_layers(environ, cwd or Path.cwd(), settings, problems, config_file),
        *preset_layer("vae", preset, settings, plugins),
    ]
    raise_problems(problems)
    layers, notes = drop_dependent(layers, "vae.name", VAE_DEPENDENT, canonical(plugins, "vae"))
    layers, more = drop_dependent(
        layers, "discriminator.name", ("discriminator.options.",), canonical(plugins, "discriminator")
    )
    layers.append(Layer("default", {"run.folder": f"outputs/{preset or 'vae-train'}"}, is_user=False))
    chosen = merge(layers, [key for key, setting in settings.items() if not setting.nullable])
    values = {key: entry.value for key, entry in chosen.items()}

    def origin_of(key: str) -> str:
        return chosen[key].origin if key in chosen else "default"

    if values.get("vae.name") is None:
        known = ", ".join(sorted(plugins.specs("vae")))
        raise UsageError("no autoencoder is named", hint=f"give --preset, or --vae: {known}")
    for key, kind in NAMED_PARTS.items():
        if values.get(key) is not None:
            with naming(origin_of(key)):
                values[key] = plugins.get(kind, str(values[key])).name
    prefix = "discriminator.options."
    given = {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}
    name = values.get("discriminator.name")
    if name is not None:
        origins = {option: origin_of(f"{prefix}{option}") for option in given}
        options = plugins.get("discriminator", name).options
        complete = complete_options(options, given, f"discriminator {name}", origins)
        values.update({f"{prefix}{option}": value for option, value in complete.items()})
    config = validated(VaeTrainConfig, nest(values, settings), origin_of)
    check_hardware(config.hardware, are_there=check_devices)
    origins = {key: origin_of(key) for key, _ in leaves(config.model_dump(mode="json"))}
    return ResolvedTrain(config, origins, (*notes, *more), kind="vae-train")
