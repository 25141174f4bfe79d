"""What `sora vae train` will do, worked out before anything heavy is imported."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sora_cli.config.resolve_train import ResolvedTrain
from sora_cli.config.vae_schema import VaeTrainConfig
from sora_cli.errors import MissingError, UsageError
from sora_cli.plugin.manager import load_attribute
from sora_cli.plugin.specs import DiscriminatorSpec, MetricSpec, PartMemory, VAESpec
from sora_cli.training.source import ClipSource
from sora_cli.training.table import ClipTable
from sora_cli.weights.locate import LocatedWeights, locate_parts, locate_weights

from .chosen import find_parallelism, load_options
from .train_plan import (
    TABLE_CACHE,
    VALIDATION_CACHE,
    RunPlan,
    clip_source,
    kept_settings,
    sharding_notes,
    validation_source,
)

if TYPE_CHECKING:
    from sora_cli.plugin.manager import Plugins

#: Settings that a run keeps for its whole life.
KEPT = (
    "run.seed",
    "data.bucket_config",
    "data.num_frames",
    "data.size",
    "data.batch_size",
    "data.frame_interval",
    "data.mixing",
    "vae.name",
    "vae.freeze",
    "vae.train_only",
    "discriminator.name",
    "discriminator.options",
)


@dataclass(frozen=True, kw_only=True)
class VaeTrainPlan(RunPlan):
    """All of one run of `sora vae train`. weights: None for random ones; network_config: as a config.json.

    perceptual_weights: of the networks that the perceptual term looks with, by part.
    """

    config: VaeTrainConfig
    source: ClipSource
    spec: VAESpec
    weights: LocatedWeights | None
    network_config: Mapping[str, Any]
    perceptual: MetricSpec | None
    perceptual_weights: Mapping[str, LocatedWeights]
    discriminator: DiscriminatorSpec | None
    discriminator_options: Any


def plan_vae_train(
    resolved: ResolvedTrain,
    plugins: Plugins,
    *,
    cache: Path | None = None,
    table: ClipTable | None = None,
    need_weights: bool = True,
) -> VaeTrainPlan:
    """Work out a run of `sora vae train`; arguments as of `plan_train`. Raises SoraError for all that can be wrong."""
    config: VaeTrainConfig = resolved.config
    assert config.vae.name is not None  # filled by the resolver
    spec = plugins.get("vae", config.vae.name)
    assert isinstance(spec, VAESpec)  # the plugin manager checked it
    if spec.train is None:
        raise UsageError(f"the autoencoder {spec.name} cannot be trained")
    parallelism = find_parallelism(config.hardware, plugins, "train")
    if parallelism is not None:
        plugins.check_installed(parallelism)
    _check_terms(config)
    folder = config.run.folder
    assert folder is not None  # filled by the resolver
    notes = [*resolved.notes, *sharding_notes(config.hardware)]
    weights = _start_weights(config, spec, plugins, notes, need_weights=need_weights)
    network_config = {**(weights.config() if weights else {}), **_config_file(config.vae.config)}
    perceptual, perceptual_weights = _perceptual(config, plugins, notes, need_weights=need_weights)
    discriminator: DiscriminatorSpec | None = None
    if config.discriminator.name is not None:
        discriminator = plugins.get("discriminator", config.discriminator.name)  # type: ignore[assignment]
    source = clip_source(config.data, config.run.seed, cache or folder / TABLE_CACHE, table, needs_text=False)
    _check_sizes(config, discriminator, source)
    if source.table.num_skipped:
        notes.append(f"{source.table.num_skipped} bad rows of the table are left out")
    return VaeTrainPlan(
        name=spec.name,
        config=config,
        folder=folder,
        source=source,
        validation=_validation(config, source, (cache or folder / TABLE_CACHE).with_name(VALIDATION_CACHE)),
        parallelism=parallelism,
        identity=kept_settings(config, KEPT, source, network_config),
        notes=tuple(notes),
        num_weights=_num_weights(spec, network_config),
        spec=spec,
        weights=weights,
        network_config=network_config,
        perceptual=perceptual,
        perceptual_weights=perceptual_weights,
        discriminator=discriminator,
        discriminator_options=load_options(discriminator, config.discriminator.options) if discriminator else None,
    )


def _check_terms(config: VaeTrainConfig) -> None:
    loss, hardware = config.loss, config.hardware
    if not (loss.pixels or loss.frame_latents or config.discriminator.name):
        raise UsageError("nothing is learned", hint="switch loss.pixels or loss.frame_latents on")
    if hardware.sequence_parallel not in (None, 1):
        raise UsageError("an autoencoder cannot be split over GPUs that share a clip", hint="--sequence-parallel 1")
    if config.discriminator.name is not None and hardware.sharding != "none":
        raise UsageError(
            "a discriminator compares pulls at a weight, which sharding cuts", hint="use --sharding none with it"
        )


def _start_weights(
    config: VaeTrainConfig, spec: VAESpec, plugins: Plugins, notes: list[str], *, need_weights: bool
) -> LocatedWeights | None:
    """Where training starts: what was asked for, which may be another autoencoder, else the released weights."""
    if config.vae.initialize == "random":
        return None
    asked, wanted, what = config.vae.weights, spec.weights, spec.name
    names = {name: each for each in plugins.specs("vae").values() for name in (each.name, *each.aliases)}
    if asked in names:
        other = names[asked]
        assert isinstance(other, VAESpec)  # the plugin manager checked it
        asked, wanted, what = None, other.weights, other.name
    try:
        found = locate_weights(wanted, what=what, override=asked, download=need_weights, raw=config.vae.raw)
    except MissingError as error:
        if need_weights:
            raise
        notes.append(error.message)
        return None
    if found is None and need_weights:
        raise MissingError(
            f"{spec.name} comes without weights",
            hint="give where to start with --vae-weights, or start from nothing with --init random",
        )
    return found


def _config_file(path: Path | None) -> dict[str, Any]:
    """The sizes of a network that was named by file."""
    if path is None:
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {path}: {error}", hint="vae.config names a config.json") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds no configuration")
    return content


def _perceptual(
    config: VaeTrainConfig, plugins: Plugins, notes: list[str], *, need_weights: bool
) -> tuple[MetricSpec | None, dict[str, LocatedWeights]]:
    """The perceptual term, where pixels are compared, and the weights it needs."""
    loss = config.loss
    if not loss.pixels or loss.perceptual is None or loss.perceptual_weight <= 0:
        return None, {}
    spec = plugins.get("metric", loss.perceptual)
    assert isinstance(spec, MetricSpec)  # the plugin manager checked it
    plugins.check_installed(spec)
    if spec.loss is None:
        raise UsageError(f"{spec.name} measures, but cannot be learned from", hint="loss.perceptual: lpips-vgg")
    given = dict.fromkeys(spec.weights, loss.perceptual_weights) if loss.perceptual_weights else {}
    try:
        return spec, locate_parts(
            spec.weights, what=spec.name, overrides=given, option="--perceptual-weights", download=need_weights
        )
    except MissingError as error:
        if need_weights:
            hint = f"{error.hint}\n--perceptual-weight 0 leaves the term out"
            raise MissingError(error.message, hint=hint) from error
        notes.append(error.message)
        return spec, {}


def _check_sizes(config: VaeTrainConfig, spec: DiscriminatorSpec | None, source: ClipSource) -> None:
    """Raise UsageError where clips of several sizes cannot be trained together."""
    if config.hardware.sharding != "none" and source.buckets is not None:
        # Ranks meet at each call of a block, and larger clips go through it more often.
        raise UsageError(
            "with --sharding all clips need one size, and there are buckets",
            hint="give --size, --frames and --batch-size, or --sharding none",
        )
    if spec is not None and spec.has_fixed_size and source.buckets is not None:
        raise UsageError(
            f"the discriminator {spec.name} judges clips of one size, and there are buckets",
            hint="give --size, --frames and --batch-size, or another discriminator",
        )


def _validation(config: VaeTrainConfig, source: ClipSource, cache: Path) -> ClipSource | None:
    wanted = config.validation
    if bool(wanted.tables) != bool(wanted.every):
        raise UsageError("a validation needs tables and an interval", hint="give --validate and --validate-every")
    if not wanted.tables:
        if wanted.samples:
            raise UsageError("samples are clips of the validation", hint="give --validate and --validate-every")
        return None
    return validation_source(wanted.tables, source, cache, needs_text=False)


def _num_weights(spec: VAESpec, network_config: Mapping[str, Any]) -> int | None:
    """Weights of the network, from its estimate of memory in decoding."""
    if spec.memory is None:
        return None
    sizes = {"height": 8, "width": 8, "num_frames": 1, "frames_at_once": 1}
    estimate: PartMemory = load_attribute(spec.memory, what=spec.name)(network_config, **sizes, dtype_bytes=1)
    return estimate.weights
