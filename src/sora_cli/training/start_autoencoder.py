"""Putting a run of `sora vae train` together on this process."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sora_cli.console import get_console
from sora_cli.errors import UsageError
from sora_cli.launch.mesh import Team
from sora_cli.plugin.manager import load_attribute
from sora_cli.tasks.components import DTYPES, choose_device
from sora_cli.tasks.vae_train_plan import VaeTrainPlan
from sora_cli.video.latents import key_seed
from sora_cli.video.shapes import closest_aspect, file_size, table_size
from sora_cli.weights.load import load_network

from .adversary import Adversary
from .autoencoder import AutoencoderObjective, ClipMixer
from .autoencoder_validation import AutoencoderSamples, AutoencoderValidation
from .engine import EngineOptions, compile_blocks, use_gradient_checkpointing
from .loop import Stop, TrainingLoop
from .source import ClipSource
from .start import adam_options, choose_trainable, let_learn, make_engine, optimizer_options, restore

if TYPE_CHECKING:
    from sora_cli.plugin.manager import Plugins


def make_loop(plan: VaeTrainPlan, plugins: Plugins, team: Team, stop: Stop) -> TrainingLoop:
    """The loop of this process, at the position of the newest checkpoint if there is one.

    Raises SoraError for weights that do not fit, terms that the autoencoder does not have, a discriminator that does
    not fit the clips, and a checkpoint of another run.
    """
    config = plan.config
    device = choose_device(config.hardware.device)
    if device.type == "cuda":
        device = torch.device("cuda", torch.cuda.current_device())
    network: Any = make_network(plan, device)
    adversary = make_adversary(plan, plugins, team, device)
    objective = AutoencoderObjective(
        config.loss, config.run.seed, make_perceptual(plan, device), adversary, network.last_layer
    )
    check_terms(plan, network)
    unused = () if objective.needs_pixels else network.pixel_parts
    choose_trainable(network, freeze=(*config.vae.freeze, *unused), train_only=config.vae.train_only, section="vae")
    get_console().note(f"training on {device.type} in {config.vae.dtype}")
    options = EngineOptions(
        **optimizer_options(config.optimizer, network),
        dtype=DTYPES[config.vae.dtype],
        sharding=config.hardware.sharding,
    )
    engine = make_engine(plan.parallelism, network, options, team)
    if config.vae.gradient_checkpointing:
        use_gradient_checkpointing(network, config.vae.checkpointing_share)
    if config.vae.compile:
        compile_blocks(network)
    mixer = ClipMixer(config.data, config.run.seed, device, functools.partial(num_positions, plan))
    loop = TrainingLoop(
        config=config,
        source=plan.source,
        engine=engine,
        encoders=mixer,
        objective=objective,
        validation=None if plan.validation is None else AutoencoderValidation(plan.validation, objective, team, device),
        previews=make_samples(plan, device),
        sample_every=config.validation.every,
        adversary=adversary,
        team=team,
        folder=plan.folder,
        identity=plan.identity,
        documents={"config.json": plan.network_config},
        stop=stop,
    )
    restore(loop, plan)
    network.train()
    return loop


def make_network(plan: VaeTrainPlan, device: torch.device) -> nn.Module:
    """The autoencoder in float32 with the weights that training starts from."""
    spec, config = plan.spec, plan.config
    assert spec.train is not None  # checked by the plan
    make = load_attribute(spec.train, what=spec.name)
    build: Callable[[], nn.Module] = lambda: make(plan.network_config)  # noqa: E731
    torch.manual_seed(key_seed(config.run.seed, "initial weights"))
    if plan.weights is None:
        return build().to(device)
    start = load_attribute(spec.start, what=spec.name) if spec.start else None
    network = load_network(
        build,
        plan.weights,
        what=spec.name,
        device=device,
        dtype=torch.float32,
        strict=config.vae.strict,
        start=(lambda tensors: start(tensors, plan.network_config)) if start is not None else None,
    )
    let_learn(network, build)
    return network


def check_terms(plan: VaeTrainPlan, network: Any) -> None:
    """Raise UsageError for terms of the loss that this autoencoder does not have."""
    asked = [name for name in ("frame_latents", "identity") if getattr(plan.config.loss, name)]
    if asked and not network.has_frame_latents:
        raise UsageError(f"{plan.spec.name} has no frame latents, which loss.{asked[0]} compares", hint="switch it off")


def make_perceptual(plan: VaeTrainPlan, device: torch.device) -> Callable[[Tensor, Tensor], Tensor] | None:
    """The perceptual distance of frames (N, 3, H, W) in [-1, 1], (N,), with gradients; None without."""
    if plan.perceptual is None:
        return None
    assert plan.perceptual.loss is not None  # checked by the plan
    make = load_attribute(plan.perceptual.loss, what=plan.perceptual.name)
    distance: Callable[[Tensor, Tensor], Tensor] = make(plan.perceptual_weights, device, DTYPES[plan.config.vae.dtype])
    return distance


def make_adversary(plan: VaeTrainPlan, plugins: Plugins, team: Team, device: torch.device) -> Adversary | None:
    """The discriminator with its engine; None without. Raises UsageError when it does not fit the clips."""
    spec, config = plan.discriminator, plan.config
    if spec is None:
        return None
    frames, height, width = largest_clip(plan.source)
    torch.manual_seed(key_seed(config.run.seed, "discriminator"))
    try:
        network = plugins.load_target(spec)(plan.discriminator_options, num_frames=frames, height=height, width=width)
    except ValueError as error:
        raise UsageError(f"the discriminator {spec.name} {error}") from error
    options = EngineOptions(**{**adam_options(config.optimizer), "ema_decay": 0.0})
    engine = make_engine(plan.parallelism, network.to(device), options, team)
    return Adversary(
        engine, config.discriminator, takes=spec.takes, num_frames=frames, team=team, dtype=DTYPES[config.vae.dtype]
    )


def largest_clip(source: ClipSource) -> tuple[int, int, int]:
    """(most frames, least height, least width) of the clips that are trained."""
    if source.buckets is None:
        assert source.size is not None  # one or the other
        return source.size
    pairs = [pair for pair in source.buckets.pairs if pair.keep > 0]
    sides = [file_size(table_size(pair.resolution, closest_aspect(pair.resolution, 1, 1))) for pair in pairs]
    return max(pair.num_frames for pair in pairs), min(side[0] for side in sides), min(side[1] for side in sides)


def num_positions(plan: VaeTrainPlan, frames: int, height: int, width: int) -> int:
    """Latent positions of a clip."""
    spec = plan.spec
    return spec.latent_frames(frames) * spec.latent_side(height) * spec.latent_side(width)


def make_samples(plan: VaeTrainPlan, device: torch.device) -> AutoencoderSamples | None:
    """Clips beside their reconstructions, if they are asked for."""
    if plan.validation is None or not plan.config.validation.samples:
        return None
    return AutoencoderSamples(plan.validation, plan.config.validation.samples, device, plan.folder / "samples")
