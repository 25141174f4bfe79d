"""Putting a training run together on this process: network, engine, encoders, and the state of an earlier run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sora_cli.acceleration.attention import choose_attention, set_attention
from sora_cli.console import get_console
from sora_cli.errors import MissingError, SoraError, UsageError
from sora_cli.launch.mesh import Team
from sora_cli.plugin.manager import load_attribute
from sora_cli.tasks.chosen import text_dtype_of
from sora_cli.tasks.components import DTYPES, TEXT_DTYPES, choose_device, choose_vae_dtype
from sora_cli.tasks.plan import DEFAULT_FPS
from sora_cli.tasks.run_memory import latent_size
from sora_cli.tasks.train_plan import RunPlan, TrainPlan, check_same_run, trained_with
from sora_cli.video.latents import NoiseShaper, key_seed
from sora_cli.video.shapes import ClipShape, closest_aspect, file_size, parse_size, table_size
from sora_cli.weights.load import load_network
from sora_cli.weights.locate import CONFIG, TRAINED_WITH

from .checkpoint import read_checkpoint
from .engine import Engine, EngineOptions, Shard, compile_blocks, use_gradient_checkpointing
from .features import FeatureEncoders, FeatureSource
from .loop import Position, Stop, TrainingLoop
from .lora import use_lora
from .objective import Encoders, Objective
from .optimizer import matrix_names
from .released_runs import is_released_run, read_released_run
from .run_folder import complete_checkpoints, damaged_checkpoints, newest_checkpoint
from .source import ClipSource
from .validation import Previews, Validation

if TYPE_CHECKING:
    from sora_cli.config.train_schema import OptimizerSection
    from sora_cli.plugin.manager import Plugins
    from sora_cli.plugin.protocols import TextEncoder
    from sora_cli.plugin.specs import ParallelismSpec


def make_loop(plan: TrainPlan, plugins: Plugins, team: Team, stop: Stop) -> TrainingLoop:
    """The loop of this process, at the position of the newest checkpoint if there is one.

    Raises SoraError for weights that do not fit, parts that cannot train, and a checkpoint of another run.
    """
    config, console = plan.config, get_console()
    device = choose_device(config.hardware.device)
    if device.type == "cuda":
        device = torch.device("cuda", torch.cuda.current_device())
    network = make_network(plan, plugins, device)
    if config.model.lora is not None:
        use_lora(network, config.model.lora, key_seed(config.run.seed, "adapters"))
    choose_trainable(network, freeze=config.model.freeze, train_only=config.model.train_only)
    attention = choose_attention(config.model.attention, device, DTYPES[config.model.dtype])
    console.note(f"training on {device.type} in {config.model.dtype}; attention {attention.name}: {attention.why}")
    set_attention(network, attention.function)
    settings = EngineOptions(
        **optimizer_options(config.optimizer, network),
        dtype=DTYPES[config.model.dtype],
        sharding=config.hardware.sharding,
        keeps_all=config.model.lora is None,
    )
    shard = plan.components.model.shard
    split = load_attribute(shard, what=plan.components.model.name) if shard else None
    engine = make_engine(plan.parallelism, network, settings, team, split)
    if config.model.gradient_checkpointing:
        use_gradient_checkpointing(network, config.model.checkpointing_share)
    if config.model.compile:
        compile_blocks(network)
    scheduler = plugins.load_target(plan.components.scheduler)(plan.scheduler_options)
    if not hasattr(scheduler, "loss"):
        raise UsageError(f"the scheduler {plan.components.scheduler.name} has no training objective")
    token_drop = config.objective.token_drop
    objective = Objective(scheduler, config.run.seed, plan.masks, plan.text_drop, token_drop, noise_shaper(plan))
    encoders = None if isinstance(plan.source, FeatureSource) else make_encoders(plan, plugins, device)
    has_texts = isinstance(plan.source, FeatureSource) and plan.source.index.has_texts
    loop = TrainingLoop(
        config=config,
        source=plan.source,
        engine=engine,
        encoders=encoders or FeatureEncoders(device, make_text_encoder(plan, plugins, device) if has_texts else None),
        objective=objective,
        validation=make_validation(plan, objective, encoders, team),
        previews=make_previews(plan, scheduler, encoders),
        sample_every=config.validation.sample_every,
        adapter=None if config.model.lora is None else config.model.lora.model_dump(mode="json"),
        team=team,
        folder=plan.folder,
        identity=plan.identity,
        documents={CONFIG: {**plan.model_config, TRAINED_WITH: trained_with(plan)}},
        patch_volume=_patch_volume(plan.model_config),
        stop=stop,
    )
    restore(loop, plan)
    network.train()
    return loop


def make_network(plan: TrainPlan, plugins: Plugins, device: torch.device) -> nn.Module:
    """The network in float32 with the weights that training starts from."""
    spec, config = plan.components.model, plan.config
    build = functools.partial(plugins.load_target(spec), plan.model_config, plan.model_options)
    if plan.weights.model is None:
        torch.manual_seed(key_seed(config.run.seed, "initial weights"))
        network: nn.Module = build()
        return network.to(device)
    map_keys = load_attribute(spec.load, what=spec.name) if spec.load else None
    start = load_attribute(spec.start, what=spec.name) if spec.start else None
    torch.manual_seed(key_seed(config.run.seed, "initial weights"))  # of what the file may lack
    network = load_network(
        build,
        plan.weights.model,
        what=f"{spec.name} ({plan.variant})",
        device=device,
        dtype=torch.float32,
        map_keys=map_keys,
        strict=config.model.strict,
        start=(lambda tensors: start(tensors, plan.model_config)) if start is not None else None,
    )
    let_learn(network, build)
    return network


def let_learn(network: nn.Module, build: Callable[[], nn.Module]) -> None:
    """Switch gradients on again, which loading switches off; tables among the parameters never have any."""
    with torch.device("meta"):
        learned = {name for name, parameter in build().named_parameters() if parameter.requires_grad}
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in learned)


def choose_trainable(
    network: nn.Module, *, freeze: tuple[str, ...], train_only: tuple[str, ...], section: str = "model"
) -> None:
    """Let gradients flow only into what is to be trained. freeze, train_only: names of modules or parameters.

    section: of the settings, for messages.

    Raises UsageError for a name that the network does not have, or when nothing is left to train.
    """
    names = [name for name, _ in network.named_parameters()]
    for part in (*freeze, *train_only):
        if not any(_is_part(name, part) for name in names):
            parts = ", ".join(dict.fromkeys(name.partition(".")[0] for name in names))
            raise UsageError(f"the network has no part {part!r}", hint=f"its parts: {parts}")
    for name, parameter in network.named_parameters():
        is_chosen = not train_only or any(_is_part(name, part) for part in train_only)
        if not is_chosen or any(_is_part(name, part) for part in freeze):
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise UsageError("all parts of the network are frozen", hint=f"see {section}.freeze and {section}.train_only")


def _is_part(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


def adam_options(settings: OptimizerSection) -> dict[str, Any]:
    """What `EngineOptions` takes from the settings of the optimizer, without Muon."""
    return {name: getattr(settings, name) for name in ("betas", "eps", "weight_decay", "ema_decay")}


def optimizer_options(settings: OptimizerSection, network: nn.Module) -> dict[str, Any]:
    """What `EngineOptions` takes from the settings of the optimizer.

    Raises UsageError for Muon and a network without matrices.
    """
    options = adam_options(settings)
    if settings.name == "muon":
        options["matrices"] = matrix_names(network)
        options["matrix_rate"] = (settings.matrix_learning_rate or settings.learning_rate) / settings.learning_rate
        if not options["matrices"]:
            raise UsageError(
                "no linear layer in the blocks of this network is trained, and muon is for those",
                hint="use optimizer.name adamw",
            )
    return options


def make_engine(
    spec: ParallelismSpec | None, network: nn.Module, options: EngineOptions, team: Team, split: Shard | None = None
) -> Engine:
    """The engine of the parallelism that was chosen. Raises UsageError for one that cannot train."""
    if spec is None:
        return Engine(network, options)
    if spec.engine is None:
        raise UsageError(f"the parallelism {spec.name!r} cannot train")
    engine: Engine = load_attribute(spec.engine, what=spec.name)(network, options, team, split)
    return engine


def make_validation(plan: TrainPlan, objective: Objective, encoders: Encoders | None, team: Team) -> Validation | None:
    """The validation loss, if it is asked for."""
    if plan.validation is None or encoders is None:
        return None
    return Validation(plan.validation, objective, encoders, team, plan.config.validation.times)


def make_previews(plan: TrainPlan, scheduler: Any, encoders: Encoders | None) -> Previews | None:
    """Sample videos, if they are asked for."""
    settings, parts = plan.config.validation, plan.components
    if not settings.prompts or encoders is None:
        return None
    frames, height, width = preview_size(plan)
    shape = ClipShape(height, width, frames, DEFAULT_FPS, DEFAULT_FPS, height, width)
    return Previews(
        prompts=settings.prompts,
        size=(frames, height, width),
        fps=DEFAULT_FPS,
        steps=settings.steps or parts.scheduler.default_steps,
        guidance=settings.guidance,
        seed=plan.config.run.seed,
        encoders=encoders,
        scheduler=scheduler,
        latent_shape=latent_size(parts.vae, shape),
        folder=plan.folder / "samples",
        shaper=noise_shaper(plan),
    )


def noise_shaper(plan: TrainPlan) -> NoiseShaper | None:
    """What makes noise depend on the text, where the model wants that."""
    model = plan.components.model
    found: NoiseShaper | None = load_attribute(model.noise, what=model.name) if model.noise else None
    return found


def preview_size(plan: TrainPlan) -> tuple[int, int, int]:
    """(frames, height, width) of sample videos: what was asked for, else the smallest resolution that is trained."""
    settings, source = plan.config.validation, plan.source
    assert isinstance(source, ClipSource)  # samples need encoders
    if source.buckets is None:
        assert source.size is not None  # one or the other
        frames, height, width = source.size
    else:
        pairs = [pair for pair in source.buckets.pairs if pair.keep > 0]
        name = pairs[-1].resolution
        frames = max(pair.num_frames for pair in pairs if pair.resolution == name)
        height, width = file_size(table_size(name, closest_aspect(name, 9, 16)))
    if settings.size is not None:
        height, width = parse_size(settings.size)
    return settings.frames or frames, height, width


def make_encoders(plan: TrainPlan, plugins: Plugins, device: torch.device) -> Encoders:
    """The frozen autoencoder and text encoder."""
    config, parts = plan.config, plan.components
    dtype = choose_vae_dtype(DTYPES[config.model.dtype], device)
    vae: Any = plugins.load_target(parts.vae)(plan.weights.vae, device, dtype)
    if not hasattr(vae, "encode"):
        raise MissingError(f"the autoencoder {parts.vae.name} cannot encode, which training needs")
    if isinstance(vae, nn.Module):
        vae.requires_grad_(False).eval()
    text = make_text_encoder(plan, plugins, device)
    return Encoders(vae, text, device, config.model.vae_batch_size, config.data.aspect_condition)


def make_text_encoder(plan: TrainPlan, plugins: Plugins, device: torch.device) -> TextEncoder:
    """The frozen text encoder."""
    spec = plan.components.text_encoder
    dtype = TEXT_DTYPES[text_dtype_of(plan.config, spec)]
    text: Any = plugins.load_target(spec)(plan.weights.text_encoder, device, dtype)
    if isinstance(text, nn.Module):
        text.requires_grad_(False).eval()
    made: TextEncoder = text
    return made


def _patch_volume(model_config: Any) -> int:
    """Latent positions per token."""
    volume = 1
    for side in model_config.get("patch_size", (1, 1, 1)):
        volume *= int(side)
    return volume


def restore(loop: TrainingLoop, plan: RunPlan) -> None:
    """Go on from the newest checkpoint of the run, or begin with the state that `run.load` names.

    Raises SoraError for a checkpoint of another run, and when the processes found different ones.
    """
    _restore(loop, plan)
    if not loop.team.is_same(loop.position.step):
        raise SoraError(
            f"the processes found different checkpoints in {plan.folder}",
            hint="the folder of a run must be on a disk that all machines share",
        )


def _restore(loop: TrainingLoop, plan: RunPlan) -> None:
    run, console = plan.config.run, get_console()
    found = complete_checkpoints(plan.folder)
    damaged = damaged_checkpoints(plan.folder)
    if damaged and not found:
        lines = [f"{path.name}: {problem}" for path, problem in damaged.items()]
        raise SoraError(
            f"no checkpoint of the run in {plan.folder} is whole",
            hint="\n".join([*lines, "start anew in another folder with --run, or remove them"]),
        )
    if found and not run.resume:
        raise UsageError(
            f"there is a run in {plan.folder} already, at update {found[-1].name.partition('-')[2]}",
            hint="leave --no-resume out to go on with it, or choose another folder with --run",
        )
    for place, problem in damaged.items():
        console.warn(f"{place} is damaged and left out: {problem}")
    if found:
        files, record = read_checkpoint(found[-1])
        for note in check_same_run(plan, record, plan.folder):
            console.note(note)
        _load(loop, files, record, found[-1])
        position = loop.position
        console.note(f"going on after update {position.step}, epoch {position.epoch}")
    elif run.load is not None and is_released_run(Path(run.load)):
        files = read_released_run(Path(run.load), loop.engine.trainable)
        _load(loop, files, {"engine": {}, **asdict(Position())}, Path(run.load))
        console.note(f"starting with the weights, averages and optimizer state of {run.load}")
    elif run.load is not None:
        path = newest_checkpoint(Path(run.load))
        if path is None:
            raise UsageError(
                f"there is no complete checkpoint in {run.load}", hint="--load takes a run or one of its step-N"
            )
        files, record = read_checkpoint(path)
        _load(loop, files, {**record, **asdict(Position())}, path)
        console.note(f"starting with the weights, averages and optimizer state of {path}")


def _load(loop: TrainingLoop, files: Any, record: Any, path: Path) -> None:
    try:
        loop.restore(files, record)
    except (KeyError, ValueError, RuntimeError) as error:
        raise SoraError(f"the checkpoint {path} does not fit this run: {error}") from error
