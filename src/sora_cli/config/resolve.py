"""From what the user said to one complete configuration, with the origin of every value.

Strongest first: flags and -O, environment, --config FILE, settings stored in a video (--from), the nearest sora.yaml,
the user's file, --preset; then, where the user left a setting open, the launch preset and the preset of the model, the
specs of the model and its scheduler, and built-in defaults.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..acceleration import ATTENTION_BACKENDS
from ..errors import MissingError, SoraError, UnknownNameError, UsageError, unknown_name
from ..launch import machine
from ..launch.torchrun import check_hardware
from ..plugin.specs import Constraints, ModelSpec, SchedulerSpec, Weights
from ..presets import LaunchEntry, choose_launch, list_presets, load_preset
from ..redaction import redact
from ..video.shapes import ClipShape, Size, covering_duration, covering_resolution, resolve_shape
from ..weights import locate
from .checks import check_picture, complete_options, naming, validated
from .layers import (
    Chosen,
    Layer,
    Problem,
    Setting,
    drop_dependent,
    first_value,
    flag_layer,
    mapping_layer,
    merge,
    nest,
    raise_problems,
    settings_in,
)
from .schema import GenerateConfig, ShapeSection
from .settings import leaves, resolved_table, settings_of
from .sources import outer_layers, preset_layer
from .training_record import SCHEDULER_DEPENDENT, unlike_training, with_training, without_equal_scheduler

__all__ = ["Plugins", "Resolved", "resolve_generate", "resolved_table", "settings_of"]

BUILT_IN: Mapping[str, Any] = {
    "shape.resolution": "240p",
    "shape.aspect_ratio": "16:9",
    "shape.duration": "2s",
    "shape.fps": 24.0,
    "sampling.guidance": 7.0,
}
"""For models without a preset: the customary values of Open-Sora."""

VAE_DEPENDENT = ("model.vae_weights",)
TEXT_DEPENDENT = ("model.text_weights", "model.text_dtype")
MODEL_DEPENDENT = (
    "model.variant",
    "model.weights",
    "model.vae",
    *VAE_DEPENDENT,
    "model.text_encoder",
    *TEXT_DEPENDENT,
    "model.options.",
)
NAMED_PARTS: Mapping[str, str] = {
    "sampling.scheduler": "scheduler",
    "model.vae": "vae",
    "model.text_encoder": "text-encoder",
}
"""Settings that name a plugin part which every run has -> kind of the part."""

RUN_SETTINGS: Mapping[str, str] = {
    "sequence": "hardware.sequence_parallel",
    "dtype": "model.dtype",
    "attention": "model.attention",
    "offload": "hardware.offload",
    "decode_frames": "hardware.decode_frames",
}
"""Keys of `run` in launch presets -> the settings they fill. `processes` equals the number of GPUs asked for, on each
machine: processes that share a clip stay on one machine."""


class Plugins(Protocol):
    """The part of the plugin manager that is used here."""

    def specs(self, kind: str) -> Mapping[str, Any]:
        """Specs of a kind by name, aliases not included."""
        ...

    def get(self, kind: str, name: str) -> Any:
        """The spec of a name or alias; UsageError when there is none."""
        ...


@dataclass(frozen=True)
class Resolved:
    """A complete configuration. origins: dotted key -> where the value comes from, for every setting and option.

    notes: settings that have no effect, and why; those about the clip's shape come from `resolve_shape`. launch: the
    entry of the launch preset that was used, with its environment variables and the memory to expect.
    """

    config: GenerateConfig
    origins: Mapping[str, str]
    notes: tuple[str, ...] = ()
    launch: LaunchEntry | None = None


def resolve_generate(
    flags: Mapping[str, Mapping[str, Any]],
    *,
    config_file: Path | None = None,
    from_settings: Mapping[str, Any] | None = None,
    preset: str | None = None,
    options: Sequence[str] = (),
    plugins: Plugins,
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    video_shape: VideoShape | None = None,
    check_devices: bool = True,
) -> Resolved:
    """Resolve the settings of `sora generate`. Imports no deep-learning library.

    flags: section -> name -> value, `None` = not given. from_settings: what `settings_of` returned for a video, or the
    record stored in it, which holds that under "config".
    options: the texts of -O. environ, cwd: of the process by default. video_shape: HEIGHTxWIDTH and frames per second
    of a video, None for a picture; without it given videos bring neither. check_devices: whether this machine must
    have the GPUs. UsageError names everything of one kind that is wrong; MissingError (exit code 3) a model without an
    installed plugin.
    """
    settings = settings_in(GenerateConfig)
    environ = os.environ if environ is None else environ
    problems: list[Problem] = []
    layers = [
        flag_layer(flags, options, settings, problems),
        *outer_layers(environ, cwd or Path.cwd(), settings, problems, config_file, from_settings),
        *preset_layer("generate", preset, settings, plugins),
    ]
    raise_problems(problems)
    if video_shape is not None:
        layers = _with_video_shape(layers, video_shape)
    layers, trained = with_training(layers)
    model, auto_notes = choose_model(layers, plugins)
    if trained is not None:
        layers = without_equal_scheduler(layers, trained, model, plugins)
    layers, notes = _add_defaults(layers, model, settings, plugins)
    layers, more_notes = _settle_rivals(layers)
    config, origins = _build(layers, settings, model, plugins)
    check_picture(config, origins, model)
    clip = _clip_shape(layers, config.shape, model.constraints)
    launch = _launch_entry(model, config, Size(clip.asked_height, clip.asked_width), clip.num_frames, plugins)
    if launch is not None:
        layers = _with_launch(layers, model, launch)
    config, origins = _build(layers, settings, model, plugins)
    check_hardware(config.hardware, are_there=check_devices)
    notes += [*more_notes, *_unused_lines(config, origins), *unlike_training(config, model, plugins)]
    return Resolved(config, origins, (*auto_notes, *notes), launch)


# -- given videos ------------------------------------------------------------------------------------------------

GIVEN_VIDEO = "the video "
"""How the origin of a size or rate starts that a given video brings."""
VideoShape = Callable[[str], tuple[str, float] | None]


def _with_video_shape(layers: list[Layer], video_shape: VideoShape) -> list[Layer]:
    """Below the layer that gives a video to extend, to lead from or to change: its rate, and but for a change its size.

    A video that is written again with a new part keeps both, unless as strong a layer says something else.
    """
    for key in ("conditioning.extend", "conditioning.connect", "conditioning.edit"):
        chosen = first_value(layers, key)
        if chosen is None:
            continue
        paths = chosen.value if isinstance(chosen.value, list | tuple) else [chosen.value]
        if not all(isinstance(path, str) for path in paths):
            continue  # what is wrong with it is said when all settings are checked
        found = next(((path, shape) for path in paths if (shape := video_shape(path))), None)
        if found is None:
            continue
        path, (size, rate) = found
        values: dict[str, Any] = {"shape.fps": rate}
        if key != "conditioning.edit":
            values["shape.size"] = size
        return [*layers[: chosen.level + 1], Layer(f"{GIVEN_VIDEO}{redact(path)}", values), *layers[chosen.level + 1 :]]
    return layers


# -- the model ---------------------------------------------------------------------------------------------------


def choose_model(layers: Sequence[Layer], plugins: Plugins) -> tuple[ModelSpec, list[str]]:
    """The model that was named, or for "auto" the best one that can run here now; and notes about that."""
    named = first_value(layers, "model.name")
    if named is None or named.value == "auto":
        device = first_value(layers, "hardware.device")
        return _best_model(plugins, device.value if device else "auto")
    try:
        with naming(named.origin):
            spec = plugins.get("model", str(named.value))
    except UnknownNameError:
        if any(info.kind == "models" and info.name == named.value for info in list_presets(plugins)):
            raise MissingError(
                f"there are presets for the model {named.value!r}, but no installed plugin provides it",
                hint="install the plugin, or run `sora plugins list --kind model` to see the models at hand",
            ) from None
        raise
    assert isinstance(spec, ModelSpec)
    return spec, []


def _best_model(plugins: Plugins, device: str) -> tuple[ModelSpec, list[str]]:
    """The highest rank among the models that fit this machine and whose weights are on it or can be downloaded.

    A download is announced; a better model whose weights cannot be had is a note. Memory and network are only asked
    for when a model wants some.
    """
    unreachable: list[ModelSpec] = []
    for spec in sorted(plugins.specs("model").values(), key=lambda spec: (-spec.rank, spec.name)):
        installed = all(importlib.util.find_spec(package) for package in spec.needs)
        fits = spec.auto_memory_gib <= _memory_gib(device, spec.auto_memory_gib > 0)
        if "t2v" not in spec.tasks or not installed or not fits:
            continue
        absent = _absent_weights(spec, plugins)
        if absent == []:
            return spec, [_better_note(unreachable[0])] if unreachable else []
        if absent and spec.rank > 0 and locate.can_be_fetched(absent):
            return spec, [_download_note(spec, absent)]
        if absent:
            unreachable.append(spec)
    if unreachable:
        name = unreachable[0].name
        raise MissingError(
            "no model that fits this machine has its weights on it, nor can they be downloaded now",
            hint=f"`sora pull {name}` fetches those of {name} when there is network and room on the disk",
        )
    raise MissingError(
        "no installed model can make videos on this machine",
        hint="name one with -m; `sora plugins list --kind model` shows the models at hand, SORA_PLUGINS may hide some",
    )


def _absent_weights(model: ModelSpec, plugins: Plugins) -> list[Weights] | None:
    """Weights of the model's first variant and of its other parts that are not on this machine; None where a part has
    no plugin."""
    try:
        parts = plugins.get("vae", model.vae), plugins.get("text-encoder", model.text_encoder)
    except UnknownNameError:
        return None
    variant = model.weights.get(next(iter(model.variants), ""))
    needed: list[Weights | None] = [variant, *(part.weights for part in parts)]
    return [weights for weights in needed if weights is not None and not locate.weights_present(weights)]


def _download_note(model: ModelSpec, absent: Sequence[Weights]) -> str:
    size = sum(weights.size_gib or 0 for weights in absent)
    return (
        f"{model.name} is the best model that fits this machine; its weights are downloaded once, about {size:.0f} GiB "
        f"(`-m NAME` or model.name in sora.yaml chooses another)"
    )


def _better_note(model: ModelSpec) -> str:
    return (
        f"{model.name} would fit this machine, but its weights are not on it and cannot be downloaded now: "
        f"`sora pull {model.name}` fetches them when there is network and room on the disk"
    )


def _memory_gib(device: str, is_needed: bool) -> float:
    """Memory of one GPU; 0 where none is used, or where the answer would not matter."""
    return machine.gpu_memory_gib() if is_needed and device in ("auto", "cuda") else 0.0


def _add_defaults(
    layers: list[Layer], model: ModelSpec, settings: Mapping[str, Setting], plugins: Plugins
) -> tuple[list[Layer], list[str]]:
    """Append what the model, its preset and the scheduler say; drop what was meant for another model or scheduler."""
    layers = with_model_name(layers, model)
    layers, notes = drop_dependent(layers, "model.name", MODEL_DEPENDENT, canonical(plugins, "model"))
    if any(info.kind == "models" and info.name == model.name for info in list_presets(plugins)):
        content = load_preset("models", model.name, plugins)
        origin = f"model preset {model.name}"
        layers.append(Layer(origin, mapping_layer(content, settings, origin, []).values, is_user=False))
    of_model = {
        "model.variant": next(iter(model.variants), None),
        "model.vae": model.vae,
        "model.text_encoder": model.text_encoder,
        "sampling.scheduler": model.scheduler,
    }
    layers.append(Layer(f"model {model.name}", of_model, is_user=False))
    for key, dependent in (
        ("model.vae", VAE_DEPENDENT),
        ("model.text_encoder", TEXT_DEPENDENT),
        ("sampling.scheduler", SCHEDULER_DEPENDENT),
    ):
        layers, more = drop_dependent(layers, key, dependent, canonical(plugins, NAMED_PARTS[key]))
        notes += more
    chosen = first_value(layers, "sampling.scheduler")
    assert chosen is not None
    with naming(chosen.origin):
        scheduler = plugins.get("scheduler", str(chosen.value))
    layers = [_steps_of(layer, scheduler, plugins) for layer in layers]
    layers.append(Layer(f"scheduler {scheduler.name}", {"sampling.steps": scheduler.default_steps}, is_user=False))
    layers.append(Layer("default", BUILT_IN, is_user=False))
    return layers, notes


def _steps_of(layer: Layer, scheduler: SchedulerSpec, plugins: Plugins) -> Layer:
    """A preset of a model without its number of steps where that is for another scheduler."""
    meant_for = layer.values.get("sampling.scheduler")
    if layer.is_user or meant_for is None or plugins.get("scheduler", meant_for).name == scheduler.name:
        return layer
    return layer.without(["sampling.steps"])


def with_model_name(layers: Sequence[Layer], model: ModelSpec) -> list[Layer]:
    """Write the model that was found where "auto" or an alias stood, so that the rest sees one name."""
    named = first_value(layers, "model.name")
    if named is None:
        return [*layers, Layer("auto", {"model.name": model.name}, is_user=False)]
    layer = layers[named.level]
    origin = f"{named.origin} (auto)" if named.value == "auto" else named.origin
    values = {**layer.values, "model.name": model.name}
    renamed = Layer(layer.origin, values, {**layer.origins, "model.name": origin}, layer.is_user)
    return [*layers[: named.level], renamed, *layers[named.level + 1 :]]


def canonical(plugins: Plugins, kind: str) -> Callable[[str], str]:
    """Names for comparison. A name that nobody provides stays: only the chosen one has to exist."""

    def name_of(name: str) -> str:
        try:
            return str(plugins.get(kind, str(name)).name)
        except SoraError:
            return str(name)

    return name_of


# -- settings that exclude each other ----------------------------------------------------------------------------

RIVALS: Sequence[tuple[str, tuple[str, ...]]] = (
    ("shape.size", ("shape.resolution", "shape.aspect_ratio")),
    ("shape.frames", ("shape.duration",)),
    ("prompt.prompts", ("prompt.file",)),
)
"""The first setting wins over the others, unless one of them was set in a stronger layer."""


def _settle_rivals(layers: list[Layer]) -> tuple[list[Layer], list[str]]:
    """Leave one way to say the size, the length and the prompts; the notes say what is not used."""
    notes: list[str] = []
    for exact_key, loose_keys in RIVALS:
        exact = first_value(layers, exact_key)
        if exact is None:
            continue
        loose = [(key, chosen) for key in loose_keys if (chosen := first_value(layers, key)) is not None]
        above = [(key, chosen) for key, chosen in loose if chosen.level < exact.level]
        if above:
            layers = [layer.without([exact_key]) for layer in layers]
            if layers[exact.level].is_user:
                notes.append(_not_used((exact_key, exact), above[0]))
        else:
            layers = [layer.without(loose_keys) for layer in layers]
            notes += [_not_used(rival, (exact_key, exact)) for rival in loose if rival[1].level == exact.level]
    layers = _without_old_refinements(layers)
    # A file rate that a preset brings belongs to the preset's frame rate.
    fps, save_fps = first_value(layers, "shape.fps"), first_value(layers, "shape.save_fps")
    if fps and save_fps and fps.level < save_fps.level:
        layers = [layer.without(["shape.save_fps"]) for layer in layers]
        if layers[save_fps.level].is_user:
            notes.append(_not_used(("shape.save_fps", save_fps), ("shape.fps", fps)))
    return layers, notes


def _without_old_refinements(layers: list[Layer]) -> list[Layer]:
    """Refined texts belong to the prompts that came with them, and give way when refining is asked for, or not, anew.

    Only by a flag: a clip that is made again has its texts, whatever the environment says of refining.
    """
    refined = first_value(layers, "prompt.refined")
    prompts = [first_value(layers, key) for key in ("prompt.prompts", "prompt.file")]
    flags = [first_value(layers, f"prompt.{name}") for name in ("refine", "refine_motion", "refine_model")]
    is_old = refined and (
        any(chosen and chosen.level < refined.level for chosen in prompts)
        or any(chosen and chosen.origin == "flag" for chosen in flags)
    )
    return [layer.without(["prompt.refined"]) for layer in layers] if is_old else layers


def _not_used(loser: tuple[str, Chosen], winner: tuple[str, Chosen]) -> str:
    return f"{loser[0]} {loser[1].value} ({loser[1].origin}) is not used: {winner[0]} ({winner[1].origin}) wins"


def _clip_shape(layers: Sequence[Layer], shape: ShapeSection, constraints: Constraints) -> ClipShape:
    """The shape of the clips; an error says which of the settings come from somewhere else than the command line."""
    try:
        return resolve_shape(shape, constraints, BUILT_IN["shape.fps"])
    except UsageError as error:
        lines = [error.hint] if error.hint else []
        for key in ("size", "resolution", "aspect_ratio", "frames", "duration"):
            chosen = first_value(layers, f"shape.{key}")
            if chosen and layers[chosen.level].is_user and chosen.origin != "flag":
                lines.append(f"shape.{key} {chosen.value} comes from {chosen.origin}")
                if key == "size" and chosen.origin.startswith(GIVEN_VIDEO):
                    lines.append("--res NAME or --size HxW fits it to another size")
        raise UsageError(error.message, hint="\n".join(lines) or None) from None


def _unused_lines(config: GenerateConfig, origins: Mapping[str, str]) -> list[str]:
    """Notes about a choice of lines where no file is read."""
    if config.prompt.file is not None:
        return []
    asked = {
        "prompt.start_index": config.prompt.start_index > 0,
        "prompt.end_index": config.prompt.end_index is not None,
    }
    return [f"{key} ({origins[key]}) is not used: there is no prompt file" for key in asked if asked[key]]


# -- launch presets ----------------------------------------------------------------------------------------------


def _launch_entry(
    model: ModelSpec, config: GenerateConfig, size: Size, num_frames: int, plugins: Plugins
) -> LaunchEntry | None:
    if not any(info.kind == "launch" and info.name == model.name for info in list_presets(plugins)):
        return None
    entries: list[LaunchEntry] = load_preset("launch", model.name, plugins)
    names = {key: [entry.when[key] for entry in entries if key in entry.when] for key in ("resolution", "duration")}
    resolution = config.shape.resolution
    # Exact sizes, and lengths without a name, run like the smallest named ones that are at least as large.
    if resolution not in names["resolution"]:
        resolution = covering_resolution(size, names["resolution"])
    wants_memory = any("min_memory_gib" in entry.when for entry in entries)
    return choose_launch(
        entries,
        resolution=resolution,
        duration=covering_duration(num_frames, names["duration"]),
        gpus=config.hardware.gpus,
        memory_gib=_memory_gib(config.hardware.device, wants_memory),
    )


def _with_launch(layers: Sequence[Layer], model: ModelSpec, launch: LaunchEntry) -> list[Layer]:
    """Below everything the user said, above the preset of the model."""
    values = {setting: launch.run[key] for key, setting in RUN_SETTINGS.items() if key in launch.run}
    layer = Layer(f"launch preset {model.name} #{launch.number}", values, is_user=False)
    position = next(index for index, other in enumerate(layers) if not other.is_user and other.origin != "auto")
    return [*layers[:position], layer, *layers[position:]]


# -- together ----------------------------------------------------------------------------------------------------


def _build(
    layers: Sequence[Layer], settings: Mapping[str, Setting], model: ModelSpec, plugins: Plugins
) -> tuple[GenerateConfig, dict[str, str]]:
    """The validated configuration and the origins of all its values."""
    never_null = [*BUILT_IN, *NAMED_PARTS, "model.name", "model.variant", "sampling.steps"]
    never_null += [key for key, setting in settings.items() if not setting.nullable]
    chosen = merge(layers, never_null)
    values = {key: entry.value for key, entry in chosen.items()}

    def origin_of(key: str) -> str:
        return chosen[key].origin if key in chosen else "default"

    _check_names(values, model, plugins, origin_of)
    scheduler = plugins.get("scheduler", values["sampling.scheduler"])
    for prefix, options, owner in (
        ("model.options", model.options, f"model {model.name}"),
        ("sampling.scheduler_options", scheduler.options, f"scheduler {scheduler.name}"),
    ):
        given = {key[len(prefix) + 1 :]: value for key, value in values.items() if key.startswith(f"{prefix}.")}
        origins = {name: origin_of(f"{prefix}.{name}") for name in given}
        complete = complete_options(options, given, owner, origins)
        values.update({f"{prefix}.{name}": value for name, value in complete.items()})
    config = validated(GenerateConfig, nest(values, settings), origin_of)
    return config, {key: origin_of(key) for key, _ in leaves(config.model_dump(mode="json"))}


def _check_names(values: dict[str, Any], model: ModelSpec, plugins: Plugins, origin_of: Callable[[str], str]) -> None:
    """UsageError for a name that nobody provides; aliases in `values` become names."""
    for key, what, known in (
        ("model.variant", f"variant of {model.name}", model.variants),
        ("model.attention", "attention backend", ATTENTION_BACKENDS),
    ):
        if known and key in values and values[key] not in known:
            with naming(origin_of(key)):
                raise unknown_name(what, str(values[key]), known)
    for key, kind in {**NAMED_PARTS, "hardware.parallel": "parallelism"}.items():
        if values.get(key) is not None:
            with naming(origin_of(key)):
                values[key] = plugins.get(kind, str(values[key])).name
