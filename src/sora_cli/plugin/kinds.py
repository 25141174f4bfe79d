"""The kinds of things plugins add: the word users type, the hook that returns them, the class of their specs."""

from __future__ import annotations

from typing import NamedTuple

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
    Spec,
    TextEncoderSpec,
    UpscalerSpec,
    VAESpec,
)


class Kind(NamedTuple):
    """One kind of spec. many: the word for several of them, in messages."""

    hook: str
    spec: type[Spec]
    many: str


KINDS = {
    "model": Kind("sora_models", ModelSpec, "models"),
    "vae": Kind("sora_vaes", VAESpec, "autoencoders"),
    "text-encoder": Kind("sora_text_encoders", TextEncoderSpec, "text encoders"),
    "scheduler": Kind("sora_schedulers", SchedulerSpec, "schedulers"),
    "parallelism": Kind("sora_parallelism", ParallelismSpec, "ways to use several devices"),
    "cutter": Kind("sora_cutters", DataToolSpec, "scene cutters"),
    "scorer": Kind("sora_scorers", DataToolSpec, "clip scorers"),
    "captioner": Kind("sora_captioners", DataToolSpec, "captioners"),
    "interpolator": Kind("sora_interpolators", InterpolatorSpec, "frame interpolators"),
    "upscaler": Kind("sora_upscalers", UpscalerSpec, "upscalers"),
    "metric": Kind("sora_metrics", MetricSpec, "quality measures"),
    "scoring-backend": Kind("sora_scoring_backends", ScoringBackendSpec, "ways to score by VBench"),
    "discriminator": Kind("sora_discriminators", DiscriminatorSpec, "discriminators"),
    "presets": Kind("sora_presets", PresetSource, "folders of presets"),
    "check": Kind("sora_checks", CheckSpec, "checks of `sora doctor`"),
}
