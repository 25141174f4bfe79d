"""What is stored of a run in its clips: all that their pictures depend on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sora_cli.plugin.specs import DEFAULT_UPSCALER
from sora_cli.video.settings import CRF

if TYPE_CHECKING:
    from sora_cli.video.shapes import ClipShape
    from sora_cli.weights.locate import LocatedWeights
    from sora_cli.weights.lora import LocatedLora

    from .plan import GeneratePlan
    from .train_plan import TrainPlan


def picture_record(plan: GeneratePlan) -> dict[str, Any]:
    """What all clips of a run share and what their pictures depend on; part of the settings hash."""
    return {
        "shape": shape_record(plan.shape),
        **parts_record(plan, plan.loras, plan.text_dtype),
        **upscaler_record(plan),
        "scheduler": {
            "name": plan.components.scheduler.name,
            "options": options_record(plan.scheduler_options),
            "steps": plan.steps,
            "guidance": plan.guidance,
        },
        "negative_prompt": plan.config.prompt.negative or None,
        "loop": plan.loop.frames if plan.loop else None,
        # As it usually is, it is not written: see below.
        "crf": plan.config.output.crf if plan.config.output.crf != CRF and not plan.is_image else None,
    }


def parts_record(plan: GeneratePlan | TrainPlan, loras: Sequence[LocatedLora], text_dtype: str) -> dict[str, Any]:
    """The network, the autoencoder and the text encoder, with the fingerprints of their weights."""
    specs, weights = plan.components, plan.weights
    return {
        "model": {
            "name": specs.model.name,
            "variant": plan.variant,
            "dtype": plan.config.model.dtype,
            "options": options_record(plan.model_options),
            "weights": _fingerprint(weights.model),
            # Only where there are some, so that clips made before adapters were known are recognised.
            **({"lora": [[lora.fingerprint, lora.scale] for lora in loras]} if loras else {}),
        },
        "vae": {"name": specs.vae.name, "weights": _fingerprint(weights.vae)},
        "text_encoder": {
            "name": specs.text_encoder.name,
            "weights": _fingerprint(weights.text_encoder),
            # The usual format is not written, so that clips made before there was a choice are recognised.
            "dtype": text_dtype if text_dtype != specs.text_encoder.dtypes[0] else None,
        },
    }


def upscaler_record(plan: GeneratePlan) -> dict[str, Any]:
    """What enlarges the clips, where they are; clips from before there was a choice have no word of it."""
    spec = plan.components.upscaler
    if plan.shape.enlarged is None or spec is None or spec.name == DEFAULT_UPSCALER:
        return {}
    return {"upscaler": {"name": spec.name, "weights": _fingerprint(plan.weights.upscaler)}}


def shape_record(shape: ClipShape) -> dict[str, Any]:
    """The numbers of a shape, for settings and for people."""
    return {
        "height": shape.height,
        "width": shape.width,
        "num_frames": shape.num_frames,
        "fps": float(shape.fps),
        "save_fps": float(shape.save_fps),
        "asked_height": shape.asked_height,
        "asked_width": shape.asked_width,
        **({} if shape.enlarged is None else {"enlarged": list(shape.enlarged)}),
    }


def options_record(options: Any) -> dict[str, Any]:
    """The options that differ from their defaults, so that a new option with a default leaves old hashes valid."""
    return {} if options is None else dict(options.model_dump(mode="json", exclude_defaults=True))


def _fingerprint(weights: LocatedWeights | None) -> str | None:
    return None if weights is None else weights.fingerprint
