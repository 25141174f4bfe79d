"""The kinds of things plugins add: the word users type, the hook that returns them, the class of their specs."""

from __future__ import annotations

from typing import Any, NamedTuple

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
    """One kind of spec. many: the word for several of them, in messages; members: what its target gives must have."""

    hook: str
    spec: type[Spec]
    many: str
    members: tuple[str, ...] = ()


KINDS = {
    "model": Kind("sora_models", ModelSpec, "models", ("named_parameters",)),
    "vae": Kind("sora_vaes", VAESpec, "autoencoders", ("decode",)),
    "text-encoder": Kind("sora_text_encoders", TextEncoderSpec, "text encoders", ("encode",)),
    "scheduler": Kind("sora_schedulers", SchedulerSpec, "schedulers", ("sample",)),
    "parallelism": Kind("sora_parallelism", ParallelismSpec, "ways to use several devices"),
    "cutter": Kind("sora_cutters", DataToolSpec, "scene cutters", ("is_rough", "frame_size", "scenes")),
    "scorer": Kind("sora_scorers", DataToolSpec, "clip scorers", ("frames", "score")),
    "captioner": Kind("sora_captioners", DataToolSpec, "captioners", ("__call__",)),
    "interpolator": Kind("sora_interpolators", InterpolatorSpec, "frame interpolators", ("between",)),
    "upscaler": Kind("sora_upscalers", UpscalerSpec, "upscalers", ("__call__",)),
    "metric": Kind("sora_metrics", MetricSpec, "quality measures", ("overlap", "__call__")),
    "scoring-backend": Kind(
        "sora_scoring_backends", ScoringBackendSpec, "ways to score by VBench", ("missing", "score")
    ),
    "discriminator": Kind("sora_discriminators", DiscriminatorSpec, "discriminators", ("named_parameters",)),
    "presets": Kind("sora_presets", PresetSource, "folders of presets"),
    "check": Kind("sora_checks", CheckSpec, "checks of `sora doctor`"),
}

#: Of a measure of sets of videos, in place of those of the others.
OF_SETS = ("piece_frames", "wanted", "features", "new_set", "distance")


def members(kind: str, spec: Any) -> tuple[str, ...]:
    """What the thing that a spec's target gives must have."""
    return OF_SETS if getattr(spec, "subject", None) == "sets" else KINDS[kind].members
