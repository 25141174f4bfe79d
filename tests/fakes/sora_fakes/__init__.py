"""Specs of the fake components; nothing heavy is imported here."""

from __future__ import annotations

from sora_cli import (
    CheckSpec,
    Constraints,
    ModelSpec,
    ParallelismSpec,
    PresetSource,
    SchedulerSpec,
    TextEncoderSpec,
    VAESpec,
    Weights,
    hookimpl,
)


@hookimpl
def sora_models() -> list[ModelSpec]:
    return [
        ModelSpec(
            name="fake",
            summary="a tiny model for tests",
            aliases=("fake-alias",),
            tasks=("t2v", "t2i"),
            target="sora_fakes.components:build",
            variants={"base": {"width": 4}, "wide": {"width": 4}},
            options="sora_fakes.options:FakeOptions",
            weights={
                variant: Weights(package="sora_fakes", files=("model.safetensors",)) for variant in ("base", "wide")
            },
            scheduler="fake",
            vae="fake",
            text_encoder="fake",
            constraints=Constraints(min_side=16, max_side=512, max_frames=64, trained="nothing"),
            rank=-1,
        )
    ]


def _one_latent_frame_per_frame(num_frames: int) -> int:
    return num_frames


@hookimpl
def sora_vaes() -> list[VAESpec]:
    return [
        VAESpec(
            name="fake",
            summary="8 x 8 pixels are one latent",
            target="sora_fakes.components:load_vae",
            latent_channels=3,
            spatial_stride=8,
            temporal_stride=1,
            latent_frames=_one_latent_frame_per_frame,
        )
    ]


@hookimpl
def sora_text_encoders() -> list[TextEncoderSpec]:
    return [
        TextEncoderSpec(
            name="fake",
            summary="letters as numbers",
            target="sora_fakes.components:load_text_encoder",
            width=4,
            max_tokens=8,
        )
    ]


@hookimpl
def sora_schedulers() -> list[SchedulerSpec]:
    return [
        SchedulerSpec(
            name="fake",
            summary="equal steps",
            target="sora_fakes.components:EqualSteps",
            prediction="velocity",
            default_steps=3,
        )
    ]


@hookimpl
def sora_parallelism() -> list[ParallelismSpec]:
    return [
        ParallelismSpec(
            name="fake-parallel",
            summary="needs a package that nobody has",
            target="sora_fakes.components:parallelize",
            needs=("a_package_nobody_has",),
            extra="flash",
        )
    ]


@hookimpl
def sora_presets() -> list[PresetSource]:
    return [PresetSource(name="fakes", summary="presets of the fake model", package="sora_fakes")]


@hookimpl
def sora_checks() -> list[CheckSpec]:
    return [CheckSpec(name="fake check", summary="always fine", target="sora_fakes.components:check")]
