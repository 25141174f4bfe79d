"""From what the user said to one complete configuration of `sora train`, with the origin of every value.

The order is that of `resolve`: flags, environment, --config FILE, sora.yaml, the user's file, --preset, then the specs
of the model and built-in defaults.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..acceleration import ATTENTION_BACKENDS
from ..errors import UsageError, unknown_name
from ..launch.torchrun import check_hardware
from ..plugin.specs import ModelSpec
from ..presets import LaunchEntry
from .checks import complete_options, naming, validated
from .files import parse_value
from .layers import (
    Layer,
    Problem,
    Setting,
    drop_dependent,
    flag_layer,
    flatten,
    merge,
    nest,
    raise_problems,
    settings_in,
)
from .resolve import Plugins, canonical, choose_model, with_model_name
from .settings import leaves
from .sources import outer_layers, preset_layer
from .train_schema import TrainConfig
from .training_record import with_training

#: Settings that go with a choice: what was meant for another model or scheduler is not used.
MODEL_DEPENDENT = (
    "model.variant",
    "model.weights",
    "model.vae",
    "model.vae_weights",
    "model.text_encoder",
    "model.text_weights",
    "model.freeze",
    "model.train_only",
    "model.options.",
)
NAMED_PARTS = {
    "objective.scheduler": "scheduler",
    "model.vae": "vae",
    "model.text_encoder": "text-encoder",
    "hardware.parallel": "parallelism",
}


@dataclass(frozen=True)
class ResolvedTrain:
    """A complete configuration. origins: dotted key -> where the value comes from; notes: what has no effect.

    kind: what is trained, see `tasks.train_plan.RUN_KINDS`.
    """

    config: Any
    origins: Mapping[str, str]
    notes: tuple[str, ...] = ()
    launch: LaunchEntry | None = None
    """As in `resolve.Resolved`; training has no launch presets."""
    kind: str = "train"


def resolve_train(
    flags: Mapping[str, Mapping[str, Any]],
    *,
    config_file: Path | None = None,
    preset: str | None = None,
    options: Sequence[str] = (),
    sets: Sequence[str] = (),
    plugins: Plugins,
    check_devices: bool = True,
    as_trained: bool = False,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> ResolvedTrain:
    """Resolve the settings of `sora train`. Imports no deep-learning library.

    flags: section -> name -> value, `None` = not given. options, sets: the texts of -O and --set.
    check_devices: whether this machine must have the GPUs. as_trained: whether weights bring the model, options and
    scheduler that they were trained with, as in sampling. Raises UsageError.
    """
    settings = settings_in(TrainConfig)
    environ = os.environ if environ is None else environ
    problems: list[Problem] = []
    layers = [
        with_sets(flag_layer(flags, options, settings, problems, scheduler="objective"), sets, settings, problems),
        *outer_layers(environ, cwd or Path.cwd(), settings, problems, config_file),
        *preset_layer("train", preset, settings, plugins),
    ]
    raise_problems(problems)
    if as_trained:
        layers, trained = with_training(layers)
        layers = [_of_objective(layer) if layer is trained else layer for layer in layers]
    model, notes = choose_model(layers, plugins)
    layers = with_model_name(layers, model)
    layers, more = drop_dependent(layers, "model.name", MODEL_DEPENDENT, canonical(plugins, "model"))
    layers.append(Layer(f"model {model.name}", _of_model(model, preset, plugins), is_user=False))
    layers, still_more = drop_dependent(
        layers, "objective.scheduler", ("objective.scheduler_options.",), canonical(plugins, "scheduler")
    )
    config, origins = _build(layers, settings, model, plugins)
    check_hardware(config.hardware, are_there=check_devices)
    return ResolvedTrain(config, origins, (*notes, *more, *still_more))


def _of_objective(trained: Layer) -> Layer:
    """What weights say of their training, by the names that the settings of sampling have in those of training."""
    names = {key: key.replace("sampling.", "objective.", 1) for key in trained.values}
    return Layer(trained.origin, {names[key]: value for key, value in trained.values.items()})


def _of_model(model: ModelSpec, preset: str | None, plugins: Plugins) -> dict[str, Any]:
    return {
        "model.variant": next(iter(model.variants), None),
        "model.vae": model.vae,
        "model.text_encoder": model.text_encoder,
        "objective.scheduler": _objective_of(model.scheduler, plugins),
        "run.folder": f"outputs/train-{preset or model.name}",
    }


def _objective_of(name: str, plugins: Plugins) -> str:
    """The scheduler that trains what one samples: itself, or the one it names."""
    with naming(f"the model's scheduler {name}"):
        spec = plugins.get("scheduler", name)
    return str(spec.trained_by or spec.name)


def with_sets(layer: Layer, sets: Sequence[str], settings: Mapping[str, Setting], problems: list[Problem]) -> Layer:
    """The flags, with the settings of --set KEY=VALUE, which are YAML."""
    values, origins = dict(layer.values), dict(layer.origins)
    for text in sets:
        key, equals, value = text.partition("=")
        section, dot, name = key.strip().partition(".")
        if not equals or not dot:
            raise UsageError(
                f"--set {text!r} is not SECTION.NAME=VALUE", hint="example: --set optimizer.betas='[0.9, 0.95]'"
            )
        parsed: Any = parse_value(value, source=f"--set {key}")
        for part in reversed(name.split(".")[1:]):
            parsed = {part: parsed}
        nested = {section: {name.split(".")[0]: parsed}}
        found = flatten(nested, settings, lambda _: "--set", problems)
        values.update(found)
        origins.update(dict.fromkeys(found, "--set"))
    return Layer(layer.origin, values, origins)


def _build(
    layers: Sequence[Layer], settings: Mapping[str, Setting], model: ModelSpec, plugins: Plugins
) -> tuple[TrainConfig, dict[str, str]]:
    never_null = [key for key, setting in settings.items() if not setting.nullable]
    chosen = merge(layers, never_null)
    values = {key: entry.value for key, entry in chosen.items()}

    def origin_of(key: str) -> str:
        return chosen[key].origin if key in chosen else "default"

    for key, what, known in (
        ("model.variant", f"variant of {model.name}", model.variants),
        ("model.attention", "attention backend", ATTENTION_BACKENDS),
    ):
        if known and key in values and values[key] not in known:
            with naming(origin_of(key)):
                raise unknown_name(what, str(values[key]), known)
    for key, kind in NAMED_PARTS.items():
        if values.get(key) is not None:
            with naming(origin_of(key)):
                values[key] = plugins.get(kind, str(values[key])).name
    scheduler = plugins.get("scheduler", values["objective.scheduler"])
    if scheduler.trained_by is not None:
        raise UsageError(
            f"{origin_of('objective.scheduler')}: the scheduler {scheduler.name} samples only",
            hint=f"train with {scheduler.trained_by}; {scheduler.name} then samples the result",
        )
    for prefix, options, owner in (
        ("model.options", model.options, f"model {model.name}"),
        ("objective.scheduler_options", scheduler.options, f"scheduler {scheduler.name}"),
    ):
        given = {key[len(prefix) + 1 :]: value for key, value in values.items() if key.startswith(f"{prefix}.")}
        complete = complete_options(options, given, owner, {name: origin_of(f"{prefix}.{name}") for name in given})
        values.update({f"{prefix}.{name}": value for name, value in complete.items()})
    config = validated(TrainConfig, nest(values, settings), origin_of)
    return config, {key: origin_of(key) for key, _ in leaves(config.model_dump(mode="json"))}
