"""What `sora train` will do, worked out before anything heavy is imported: parts, table, buckets, folder, checks."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sora_cli.conditioning.frame_masks import MaskRatios
from sora_cli.config.resolve_train import ResolvedTrain
from sora_cli.config.settings import leaves
from sora_cli.config.train_schema import ClipSection, TrainConfig, TrainHardwareSection
from sora_cli.data.tables import table_files
from sora_cli.errors import MissingError, SoraError, UsageError
from sora_cli.launch.torchrun import machines
from sora_cli.plugin.manager import load_attribute
from sora_cli.plugin.specs import ParallelismSpec, PartMemory
from sora_cli.training.buckets import BucketTable
from sora_cli.training.captions import CaptionOptions
from sora_cli.training.features import CAPTIONS, FeatureIndex, FeatureSource, is_features, read_index
from sora_cli.training.source import ClipSource
from sora_cli.training.table import ClipTable, mapped_table, open_table
from sora_cli.video.shapes import check_frames, parse_size

from .chosen import (
    PARTS,
    Components,
    ComponentWeights,
    find_components,
    load_options,
    locate_components,
    network_config,
    of_another_model,
    variant_of,
)
from .records import options_record

if TYPE_CHECKING:
    from sora_cli.config.vae_schema import VaeTrainConfig
    from sora_cli.plugin.manager import Plugins


class RunKind(NamedTuple):
    """A kind of training. config, plan, loop: "module:attr" of its settings, of what plans it and makes its loop."""

    command: str
    config: str
    plan: str
    loop: str


RUN_KINDS = {
    "train": RunKind(
        "sora train",
        "sora_cli.config.train_schema:TrainConfig",
        "sora_cli.tasks.train_plan:plan_train",
        "sora_cli.training.start:make_loop",
    ),
    "vae-train": RunKind(
        "sora vae train",
        "sora_cli.config.vae_schema:VaeTrainConfig",
        "sora_cli.tasks.vae_train_plan:plan_vae_train",
        "sora_cli.training.start_autoencoder:make_loop",
    ),
}
TABLE_CACHE, VALIDATION_CACHE = "table.arrow", "validation.arrow"
#: Settings that a run keeps for its whole life: other data, another network or other batches are another run.
KEPT = (
    "run.seed",
    "data.bucket_config",
    "data.num_frames",
    "data.size",
    "data.batch_size",
    "data.frame_interval",
    "model.name",
    "model.variant",
    "model.vae",
    "model.text_encoder",
    "model.lora",
    "model.freeze",
    "model.train_only",
    "objective.scheduler",
)


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """What every training run has. name: of what is trained; folder: of the run.

    identity: what must be the same when it goes on.
    num_weights, num_in_blocks: weights of the network, and those of them in its blocks, where its plugin says it.
    parallelism: None for one process.
    """

    name: str
    config: TrainConfig | VaeTrainConfig
    folder: Path
    source: ClipSource | FeatureSource
    validation: ClipSource | None
    parallelism: ParallelismSpec | None
    identity: Mapping[str, Any]
    notes: tuple[str, ...]
    num_weights: int | None
    num_in_blocks: int = 0

    @property
    def num_rows(self) -> int:
        """Clips."""
        return len(self.source.table if isinstance(self.source, ClipSource) else self.source.index)

    @property
    def num_processes(self) -> int:
        """Over all machines."""
        return self.config.hardware.gpus * machines(self.config.hardware).nnodes

    @property
    def num_ranks(self) -> int:
        """Processes, or groups of them that share a clip, that train different batches."""
        return self.num_processes // (self.config.hardware.sequence_parallel or 1)


@dataclass(frozen=True, kw_only=True)
class TrainPlan(RunPlan):
    """All of one run of `sora train`."""

    config: TrainConfig
    components: Components
    weights: ComponentWeights
    variant: str
    model_config: Mapping[str, Any]
    model_options: Any
    scheduler_options: Any
    masks: MaskRatios | None
    text_drop: float


def plan_train(
    resolved: ResolvedTrain,
    plugins: Plugins,
    *,
    cache: Path | None = None,
    table: ClipTable | None = None,
    need_weights: bool = True,
    advice: str = "give where to start with --weights, or start from nothing with --init random",
) -> TrainPlan:
    """Work out a run of `sora train`: reads and checks the table and looks for weights.

    cache: where the mapped copy of the table is written, by default in the run's folder. table: opened already, by the
    process that started this one. need_weights: False lets weights be absent (for a dry run). advice: for a model that
    comes without. Raises SoraError for all that can be wrong at this point.
    """
    config = resolved.config
    components = find_components(config, plugins)
    if components.parallelism is not None:
        plugins.check_installed(components.parallelism)
    folder = config.run.folder
    assert folder is not None  # filled by the resolver
    notes = list(resolved.notes)
    features = feature_index(config)
    weights = _weights(config, components, plugins, notes, advice, need_weights=need_weights, features=features)
    variant = variant_of(config, components.model)
    model_config = _network_config(config, components, variant, weights)
    num_weights, num_in_blocks = _num_weights(components, model_config)
    notes += sharding_notes(config.hardware)
    masks = None if config.objective.mask_ratios is None else _masks(config.objective.mask_ratios)
    clip_cache = cache or folder / TABLE_CACHE
    source = _source(config, features, components, clip_cache, table, notes)
    drop = config.objective.text_drop
    return TrainPlan(
        name=components.model.name,
        parallelism=components.parallelism,
        num_weights=num_weights,
        num_in_blocks=num_in_blocks,
        config=config,
        components=components,
        weights=weights,
        variant=variant,
        model_config=model_config,
        model_options=load_options(components.model, config.model.options),
        scheduler_options=load_options(components.scheduler, config.objective.scheduler_options),
        folder=folder,
        source=source,
        validation=_validation(config, source, clip_cache.with_name(VALIDATION_CACHE)),
        masks=masks,
        text_drop=float(model_config.get("class_dropout_prob", 0.0)) if drop is None else drop,
        identity=_identity(config, source, model_config, weights),
        notes=tuple(notes),
    )


def _source(
    config: TrainConfig,
    features: FeatureIndex | None,
    components: Components,
    cache: Path,
    table: ClipTable | None,
    notes: list[str],
) -> ClipSource | FeatureSource:
    """What is trained on: stored features where there are some, else the clips of the table; adds to the notes."""
    if features is not None:
        _check_features(features, config)
        captions = CaptionOptions(config.run.seed, config.data.score_captions, config.data.score_drop)
        return FeatureSource(features, captions, config.data.workers, config.data.prefetch)
    check = functools.partial(check_frames, constraints=components.model.constraints)
    source = clip_source(config.data, config.run.seed, cache, table, check=check)
    if source.table.num_skipped:
        notes.append(f"{source.table.num_skipped} bad rows of the table are left out")
    return source


def trained_with(plan: TrainPlan) -> dict[str, Any]:
    """What sampling has to know of a run, by the names of settings of `sora generate`; kept in its config.json."""
    parts, remembered = plan.components, plan.components.scheduler.remembered
    scheduler = {name: value for name, value in options_record(plan.scheduler_options).items() if name in remembered}
    given = {
        "model.options": options_record(plan.model_options),
        "sampling.scheduler_options": scheduler,
    }
    return {
        "model.name": parts.model.name,
        "model.variant": plan.variant,
        "model.vae": parts.vae.name,
        "model.text_encoder": parts.text_encoder.name,
        "sampling.scheduler": parts.scheduler.name,
        **{f"{section}.{name}": value for section, options in given.items() for name, value in options.items()},
    }


def feature_index(config: TrainConfig) -> FeatureIndex | None:
    """The extracted features that --data names, None for tables. Raises UsageError for several places with features."""
    found = [place for place in config.data.tables if is_features(place)]
    if not found:
        return None
    if len(config.data.tables) > 1:
        raise UsageError("features are trained from one folder at a time", hint=f"give --data {found[0]} alone")
    return read_index(Path(found[0]).expanduser())


def feature_settings(config: TrainConfig, weights: ComponentWeights) -> dict[str, Any]:
    """What features depend on, beside the table; stored with them."""
    data = config.data.model_dump(mode="json")
    kept = (
        *("bucket_config", "num_frames", "size", "batch_size", "transform", "frame_interval", "exact_stride"),
        *("fps_condition", "aspect_condition", "score_captions", "score_drop"),
    )
    return {
        "vae": [config.model.vae, weights.vae.fingerprint if weights.vae else None],
        "text_encoder": [config.model.text_encoder, weights.text_encoder.fingerprint if weights.text_encoder else None],
        "seed": config.run.seed,
        **{name: data[name] for name in kept},
        # Folders of earlier versions have encoded captions and do not say so.
        **({CAPTIONS: "text"} if config.data.extract_captions == "text" else {}),
    }


def _check_features(index: FeatureIndex, config: TrainConfig) -> None:
    """Raise UsageError for features of another autoencoder or text encoder than the model's."""
    for part, name in (("vae", config.model.vae), ("text_encoder", config.model.text_encoder)):
        made_with = index.settings[part][0]
        if made_with != name:
            raise UsageError(f"the features in {index.folder} are of {part} {made_with}, and the model has {name}")


def process_content(
    task: str, resolved: ResolvedTrain, source: ClipSource | FeatureSource, cache: Path
) -> dict[str, Any]:
    """What every process of a run on several needs to know, JSON-safe. cache: the mapped copy of the table."""
    content: dict[str, Any] = {
        "task": task,
        "kind": resolved.kind,
        "config": resolved.config.model_dump(mode="json"),
        "origins": dict(resolved.origins),
        "device": "cpu" if resolved.config.hardware.device == "cpu" else "cuda",
    }
    if isinstance(source, ClipSource):
        table = source.table
        content["table"] = {"root": str(table.root), "fingerprint": table.fingerprint, "cache": str(cache)}
    return content


def plan_of_process(content: Mapping[str, Any], plugins: Plugins) -> Any:
    """The plan again, in a process that was given `process_content`."""
    kind = RUN_KINDS[content["kind"]]
    config = load_attribute(kind.config, what=kind.command).model_validate(content["config"])
    about = content.get("table")
    table = mapped_table(Path(about["cache"]), Path(about["root"]), about["fingerprint"]) if about else None
    plan = load_attribute(kind.plan, what=kind.command)
    return plan(ResolvedTrain(config, content["origins"], kind=content["kind"]), plugins, table=table)


def clip_source(
    data: ClipSection,
    seed: int,
    cache: Path,
    table: ClipTable | None = None,
    *,
    check: Callable[[int], None] = lambda frames: None,
    needs_text: bool = True,
) -> ClipSource:
    """The table, read and checked, with its buckets or its one size. check: of numbers of frames. Raises UsageError."""
    if not data.tables and table is None:
        raise UsageError("there is nothing to train on", hint="give a table of clips with --data")

    buckets, size = None, None
    if data.bucket_config is not None and data.size is None:
        if not isinstance(data.bucket_config, Mapping):
            raise UsageError("data.bucket_config must hold {resolution: {frames: [keep, batch size]}}")
        buckets = BucketTable(data.bucket_config, check)
        unused = [name for name in ("num_frames", "batch_size") if getattr(data, name) is not None]
        if unused:
            raise UsageError(
                f"data.{unused[0]} is for clips of one size, and there are buckets",
                hint="give --size, --frames and --batch-size together, or change the buckets",
            )
    elif data.size is not None and data.num_frames is not None and data.batch_size is not None:
        check(data.num_frames)
        asked = parse_size(data.size)
        size = (data.num_frames, asked.height, asked.width)
        if data.transform == "center" and asked.height != asked.width:
            raise UsageError(f"data.transform center makes squares, not {data.size}", hint="use resize_crop")
    else:
        table_files(data.tables)  # a folder of features, which would say the sizes, may not be there
        raise UsageError(
            "it is not said at which sizes to train",
            hint="give --preset or data.bucket_config in a file with --config, or --size, --frames and --batch-size\n"
            "run `sora presets list --kind train` to see the presets",
        )
    if table is None:
        needs_sizes = buckets is not None
        table = open_table(
            data.tables,
            cache=cache,
            root=data.root,
            needs_sizes=needs_sizes,
            needs_text=needs_text,
            bad_rows=data.bad_rows,
        )
    return ClipSource(table, data, seed, buckets, size)


def validation_source(tables: Sequence[str], source: ClipSource, cache: Path, *, needs_text: bool = True) -> ClipSource:
    """Clips to look at between updates, cut as those of training."""
    own = cache.with_name(f"{cache.name}.{os.getpid()}")  # every process reads it for itself
    table = open_table(
        tables,
        cache=own,
        root=source.data.root,
        needs_sizes=source.buckets is not None,
        needs_text=needs_text,
        bad_rows=source.data.bad_rows,
    )
    own.unlink()  # it stays mapped
    found = ClipSource(table, source.data, source.seed, source.buckets, source.size)
    if not len(found.plan(0, num_ranks=1, shuffle=False, drop_last=False)):
        raise UsageError(
            f"no clip of {', '.join(tables)} is in a bucket, so nothing can be validated",
            hint="give larger or longer clips with --validate; `sora train buckets` says where clips go",
        )
    return found


def _validation(config: TrainConfig, source: ClipSource | FeatureSource, cache: Path) -> ClipSource | None:
    """Clips for the validation loss, None without; UsageError for sample videos or tables that cannot be encoded."""
    wanted = config.validation
    has_loss, has_samples = bool(wanted.tables and wanted.every), bool(wanted.prompts and wanted.sample_every)
    if bool(wanted.tables) != bool(wanted.every):
        raise UsageError("a validation loss needs tables and an interval", hint="give --validate and --validate-every")
    if bool(wanted.prompts) != bool(wanted.sample_every):
        raise UsageError("sample videos need prompts and an interval", hint="give --sample-prompt and --sample-every")
    if not isinstance(source, ClipSource):
        if has_loss or has_samples:
            raise UsageError("training from features has no encoders, which validation and sample videos need")
        return None
    if not has_loss:
        return None
    return validation_source(wanted.tables, source, cache)


def _masks(ratios: Any) -> MaskRatios:
    if not isinstance(ratios, Mapping):
        raise UsageError("objective.mask_ratios must hold {kind of mask: chance}")
    return MaskRatios(ratios)


def _weights(
    config: TrainConfig,
    components: Components,
    plugins: Plugins,
    notes: list[str],
    advice: str,
    *,
    need_weights: bool,
    features: FeatureIndex | None,
) -> ComponentWeights:
    """Where training starts, which may be the weights of another model, and the other parts."""
    is_random = config.model.initialize == "random"
    is_used = {
        "model": not is_random,
        "vae": features is None,
        "text_encoder": features is None or features.has_texts,
    }
    parts = [part for part in PARTS if is_used[part]]
    try:
        weights = locate_components(
            config, components, download=need_weights, parts=parts, advice=advice, starts=plugins.specs("model")
        )
    except MissingError as error:
        if need_weights:
            raise
        notes.append(error.message)
        return ComponentWeights(None, None, None)
    return weights


def _network_config(
    config: TrainConfig, components: Components, variant: str, weights: ComponentWeights
) -> dict[str, Any]:
    """The architecture that is trained. Weights of another model give theirs to no one.

    With another text encoder than the model's own, captions have its length, and "no text" is made as long.
    """
    model, encoder = components.model, components.text_encoder
    is_other = of_another_model(model, config.model.weights)
    found = network_config(model, variant, None if is_other else weights.model)
    if encoder.name != model.text_encoder and "model_max_length" in found:
        found["model_max_length"] = encoder.max_tokens
    return found


def _identity(
    config: TrainConfig,
    source: ClipSource | FeatureSource,
    model_config: Mapping[str, Any],
    weights: ComponentWeights,
) -> dict[str, Any]:
    kept = kept_settings(config, KEPT, source, model_config)
    if config.model.lora is not None and weights.model is not None:  # not in the checkpoints of an adapter
        kept["model.weights"] = weights.model.fingerprint
    return kept


def kept_settings(
    config: TrainConfig | VaeTrainConfig,
    keys: Sequence[str],
    source: ClipSource | FeatureSource,
    network_config: Mapping[str, Any],
) -> dict[str, Any]:
    """What must stay the same when a run goes on: these settings, the network's sizes, and the table."""
    sections = config.model_dump(mode="json")
    kept = {}
    for key in keys:
        section, _, name = key.partition(".")
        kept[key] = sections[section][name]
    kept["model.architecture"] = _digest(network_config)
    data = source.table if isinstance(source, ClipSource) else source.index
    kept["table"] = {"rows": len(data), "fingerprint": data.fingerprint}
    return kept


def sharding_notes(hardware: TrainHardwareSection) -> list[str]:
    """What to say of sharding that has no effect."""
    if hardware.sharding == "none" or hardware.gpus * machines(hardware).nnodes > 1:
        return []
    return [f"--sharding {hardware.sharding} changes nothing on one device"]


def _num_weights(components: Components, model_config: Mapping[str, Any]) -> tuple[int | None, int]:
    """Weights of the network, and those of them in blocks, from its own estimate of memory."""
    model = components.model
    if model.memory is None:
        return None, 0
    sizes = {"latent_shape": (components.vae.latent_channels, 1, 8, 8), "rows": 1, "text_tokens": 1}
    estimate: PartMemory = load_attribute(model.memory, what=model.name)(model_config, **sizes, dtype_bytes=1)
    return estimate.weights, estimate.all_blocks


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def check_same_run(plan: RunPlan, record: Mapping[str, Any], where: Path) -> list[str]:
    """Notes on settings that changed since a checkpoint. Raises SoraError when it is of another run."""
    before, now = record["identity"], json.loads(json.dumps(plan.identity))
    changed = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    if changed:
        lines = [f"{key}: {_short(before.get(key))} before, {_short(now.get(key))} now" for key in changed]
        raise SoraError(
            f"the run in {where} was started with other data or another model",
            hint="\n".join([*lines, "choose another folder with --run, or use the settings of before"]),
        )
    old, new = (dict(leaves(config)) for config in (record["config"], plan.config.model_dump(mode="json")))
    return [
        f"{key} was {_short(old.get(key))} and is {_short(new[key])} now" for key in new if old.get(key) != new[key]
    ]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
