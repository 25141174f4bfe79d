"""The parts that a run was told to use, where their weights are, and whether they fit together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from sora_cli.config.schema import GenerateConfig
from sora_cli.errors import MissingError, UsageError
from sora_cli.plugin.manager import load_attribute
from sora_cli.plugin.specs import (
    DiscriminatorSpec,
    ModelSpec,
    ParallelismSpec,
    SchedulerSpec,
    Spec,
    TextEncoderSpec,
    UpscalerSpec,
    VAESpec,
    Weights,
)
from sora_cli.weights.locate import LocatedWeights, locate_weights, needs_network
from sora_cli.weights.trained import trained_with

from .prompt_checks import check_latents, check_text_width

if TYPE_CHECKING:
    from sora_cli.config.schema import ProcessesSection
    from sora_cli.config.train_schema import TrainConfig
    from sora_cli.plugin.manager import Plugins

#: The parts of a run that have weights.
PARTS = ("model", "vae", "text_encoder")
AnySpec = TypeVar("AnySpec", bound=Spec)


@dataclass(frozen=True)
class Components:
    """The specs of the four parts that make a clip."""

    model: ModelSpec
    vae: VAESpec
    text_encoder: TextEncoderSpec
    scheduler: SchedulerSpec
    parallelism: ParallelismSpec | None = None
    """How the network is spread over several processes; None for one."""
    upscaler: UpscalerSpec | None = None
    """What enlarges clips; None where nothing can be enlarged."""


@dataclass(frozen=True)
class ComponentWeights:
    """Where the weights are; None for a part that needs none."""

    model: LocatedWeights | None
    vae: LocatedWeights | None
    text_encoder: LocatedWeights | None
    upscaler: LocatedWeights | None = None


def find_components(config: GenerateConfig | TrainConfig, plugins: Plugins) -> Components:
    """The specs that the configuration names, falling back on the model's own.

    Raises UsageError for a model that cannot be split as asked.
    """
    model = _spec(plugins, "model", config.model.name, ModelSpec)
    if isinstance(config, GenerateConfig):
        task, scheduler = "generate", config.sampling.scheduler
        upscaler = config.output.upscaler or (model.upscaler if model.constraints.sampled_area else None)
    else:
        task, scheduler, upscaler = "train", config.objective.scheduler, None
    if model.shard is None and (config.hardware.sequence_parallel or 1) > 1:
        raise UsageError(
            f"{model.name} cannot be split over processes that share a clip",
            hint="use --sequence-parallel 1: every process then makes or trains clips of its own",
        )
    return Components(
        model=model,
        vae=_spec(plugins, "vae", config.model.vae or model.vae, VAESpec),
        text_encoder=_spec(plugins, "text-encoder", config.model.text_encoder or model.text_encoder, TextEncoderSpec),
        scheduler=_spec(plugins, "scheduler", scheduler or model.scheduler, SchedulerSpec),
        parallelism=find_parallelism(config.hardware, plugins, task),
        upscaler=_spec(plugins, "upscaler", upscaler, UpscalerSpec) if upscaler else None,
    )


def find_parallelism(hardware: ProcessesSection, plugins: Plugins, task: str = "generate") -> ParallelismSpec | None:
    """The scheme that was named, or for several processes the first that splits data and clips."""
    if hardware.parallel is not None:
        spec = _spec(plugins, "parallelism", hardware.parallel, ParallelismSpec)
        if task not in spec.tasks:
            raise UsageError(
                f"the parallelism {spec.name!r} is not for `sora {task}`, only for {', '.join(spec.tasks)}"
            )
        return spec
    if hardware.gpus * hardware.nnodes == 1:
        return None
    for name in sorted(plugins.specs("parallelism")):
        spec = _spec(plugins, "parallelism", name, ParallelismSpec)
        if {"data", "sequence"} <= set(spec.degrees) and task in spec.tasks and not spec.needs:
            return spec
    raise MissingError(
        "no installed plugin spreads a run over several processes",
        hint="`sora plugins list --kind parallelism` shows what is there; SORA_PLUGINS may hide some",
    )


def _spec(plugins: Plugins, kind: str, name: str, spec_class: type[AnySpec]) -> AnySpec:
    spec = plugins.get(kind, name)
    assert isinstance(spec, spec_class)  # the plugin manager checked it
    return spec


def locate_components(
    config: GenerateConfig | TrainConfig,
    components: Components,
    *,
    download: bool = True,
    parts: Sequence[str] = PARTS,
    advice: str = "give a file or folder with --weights",
    starts: Mapping[str, Spec] | None = None,
) -> ComponentWeights:
    """The weights of the model, the autoencoder and the text encoder, or what the user gives instead of them.

    download: fetch what is on the hub and not here. parts: those that are looked for. advice: for a model that comes
    without weights. starts: in training, models whose names may stand for their weights. What needs no network is
    looked at first, so that nothing is fetched for a run that cannot be. Raises MissingError for what cannot be had,
    UsageError for a text encoder or an autoencoder that does not fit the model.
    """
    model, settings = components.model, config.model
    variant = variant_of(config, model)
    if "model" in parts and settings.weights is None and variant not in model.weights:
        raise MissingError(f"{model.name} ({variant}) comes without weights", hint=advice)
    start = (starts or {}).get(settings.weights or "")
    of_model = (model.weights.get(variant), f"{model.name} ({variant})", settings.weights, settings.raw)
    if isinstance(start, ModelSpec):
        first = next(iter(start.variants))
        of_model = (start.weights.get(first), f"{start.name} ({first})", None, False)
    wanted: dict[str, tuple[Weights | None, str, str | None, bool]] = {
        "model": of_model,
        "vae": (components.vae.weights, components.vae.name, settings.vae_weights, False),
        "text_encoder": (components.text_encoder.weights, components.text_encoder.name, settings.text_weights, False),
    }
    usual: dict[str, Mapping[str, Any]] = {"model": model.variants[variant]}
    if "text_encoder" in parts:
        usual["text_encoder"] = {}
        if "model" not in parts and settings.text_weights is not None:
            # Whoever brings an encoder of another size and no network, as for extraction, means one that fits.
            del usual["model"]
    configs = {part: config for part, config in usual.items() if wanted[part][2] is None}
    check_text_width(components, configs)
    check_latents(components, configs.get("model", {}))
    found: dict[str, LocatedWeights | None] = {}
    absent: list[MissingError] = []
    for part in sorted(parts, key=lambda part: needs_network(*wanted[part][::2])):
        weights, what, override, raw = wanted[part]
        try:
            located = locate_weights(weights, what=what, override=override, download=download, raw=raw)
        except MissingError as error:
            if download:
                raise
            absent.append(error)  # the others may be missing too, and a download is of all of them
            continue
        if part in usual and located is not None:
            is_other = part == "model" and starts is not None and of_another_model(model, settings.weights)
            configs[part] = {**usual[part], **({} if is_other else located.config())}
            check_text_width(components, configs)
            check_latents(components, configs.get("model", {}))
        found[part] = located
    if absent:
        raise MissingError("\n".join(error.message for error in absent), hint=absent[0].hint)
    return ComponentWeights(**{part: found.get(part) for part in PARTS})


def of_another_model(model: ModelSpec, place: str | None) -> bool:
    """Whether weights say that they were trained as another model, of which training may start."""
    return place is not None and trained_with(place).get("model.name", model.name) != model.name


def text_dtype_of(config: GenerateConfig | TrainConfig, encoder: TextEncoderSpec) -> str:
    """The number format of the text encoder. Raises UsageError for one that it does not have."""
    asked = config.model.text_dtype
    if asked == "auto":
        return encoder.dtypes[0]
    if asked not in encoder.dtypes:
        raise UsageError(
            f"the text encoder {encoder.name} cannot be loaded in {asked}", hint=f"it has {', '.join(encoder.dtypes)}"
        )
    return str(asked)


def variant_of(config: GenerateConfig | TrainConfig, model: ModelSpec) -> str:
    """The size of the model: what was asked for, else its first."""
    return config.model.variant or next(iter(model.variants))


def network_config(model: ModelSpec, variant: str, weights: LocatedWeights | None) -> dict[str, Any]:
    """The architecture: that of the variant, and over it what a `config.json` beside the weights says."""
    values = weights.config() if weights is not None else {}
    if "_class_name" in values:  # diffusers wrote it, in words of its own
        reader = model.diffusers_config
        values = load_attribute(reader, what=model.name)(values) if reader is not None else {}
    return {**model.variants[variant], **values}


def load_options(spec: ModelSpec | SchedulerSpec | DiscriminatorSpec, given: Mapping[str, Any]) -> Any:
    """The options object of a component, from options that are already checked; None when it has no options class."""
    return None if spec.options is None else load_attribute(spec.options, what=spec.name)(**given)
