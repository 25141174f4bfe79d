"""All hooks a plugin may implement. Every hook is optional and returns a list of specs.

Hooks are called in sorted plugin-name order, once, when a command first needs that kind. Two plugins that claim
one name or alias of one kind are an error naming both. Keep the module that holds your hooks light: import
`hookimpl` and the specs from `sora_cli`, name implementations as "package.module:attribute" strings.
"""

from __future__ import annotations

import pluggy

from .specs import (
    CheckSpec,
    DataToolSpec,
    DiscriminatorSpec,
    InterpolatorSpec,
    MetricSpec,
    ModelSpec,
    ParallelismSpec,
    PresetSource,
    SchedulerSpec,
    ScoringBackendSpec,
    TextEncoderSpec,
    UpscalerSpec,
    VAESpec,
)

PROJECT = "sora"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def sora_models() -> list[ModelSpec]:  # type: ignore[empty-body]
    """Diffusion models for generate, i2v, extend, train and serve."""


@hookspec
def sora_vaes() -> list[VAESpec]:  # type: ignore[empty-body]
    """Video autoencoders, between pixels and latents."""


@hookspec
def sora_text_encoders() -> list[TextEncoderSpec]:  # type: ignore[empty-body]
    """Encoders that turn prompts into the embeddings a model reads."""


@hookspec
def sora_schedulers() -> list[SchedulerSpec]:  # type: ignore[empty-body]
    """Samplers and training objectives."""


@hookspec
def sora_parallelism() -> list[ParallelismSpec]:  # type: ignore[empty-body]
    """Ways to spread one model over several devices."""


@hookspec
def sora_cutters() -> list[DataToolSpec]:  # type: ignore[empty-body]
    """Scene cutters for `sora data cut`."""


@hookspec
def sora_scorers() -> list[DataToolSpec]:  # type: ignore[empty-body]
    """Clip scorers for `sora data score`."""


@hookspec
def sora_captioners() -> list[DataToolSpec]:  # type: ignore[empty-body]
    """Captioners for `sora data caption`."""


@hookspec
def sora_interpolators() -> list[InterpolatorSpec]:  # type: ignore[empty-body]
    """Ways to make frames between frames, for footage of a low frame rate."""


@hookspec
def sora_upscalers() -> list[UpscalerSpec]:  # type: ignore[empty-body]
    """Ways to enlarge the frames of clips that are larger than their model makes."""


@hookspec
def sora_metrics() -> list[MetricSpec]:  # type: ignore[empty-body]
    """Quality measures for `sora eval`."""


@hookspec
def sora_scoring_backends() -> list[ScoringBackendSpec]:  # type: ignore[empty-body]
    """Ways to score clips by the dimensions of VBench."""


@hookspec
def sora_discriminators() -> list[DiscriminatorSpec]:  # type: ignore[empty-body]
    """Networks that video autoencoders are trained against."""


@hookspec
def sora_presets() -> list[PresetSource]:  # type: ignore[empty-body]
    """Package folders with more YAML presets."""


@hookspec
def sora_checks() -> list[CheckSpec]:  # type: ignore[empty-body]
    """Checks for `sora doctor`."""
