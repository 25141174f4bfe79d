"""What a run needs on its device, worked out from sizes before anything is loaded. Pure Python.

Prompts are encoded first and the text encoder is gone before sampling starts, so a run has three phases. What is on the
device in each depends on the level of offloading:

level   encoding the text        sampling                    decoding
none    text encoder             model and autoencoder       model and autoencoder
model   text encoder             model                       autoencoder
block   its blocks in turn       the model's blocks in turn  autoencoder
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sora_cli.plugin.specs import PartMemory

GIB = 2**30
LEVELS = ("none", "model", "block")
#: What a CUDA context, loaded kernels, their workspaces and the gaps of the allocator take beyond what is counted.
MARGIN_GIB = 0.9
#: Frames decoded together when memory allows; more gain nothing.
DECODE_FRAMES = (4, 2, 1)


@dataclass(frozen=True)
class PartEstimates:
    """Memory of the three parts; None for one whose plugin gives no estimate. vae: by frames decoded together."""

    text: PartMemory | None
    model: PartMemory | None
    vae: Callable[[int], PartMemory] | None


@dataclass(frozen=True)
class MemoryPlan:
    """How a run uses its device. Memory in GiB, margin included.

    offload: "none", "model" or "block"; text_device: "same", "block" (its blocks in turn) or "cpu"; decode_frames:
    frames decoded together. phases: memory in each phase, as far as plugins estimate it. available: of the device,
    None when it is not known.
    """

    offload: str
    text_device: str
    decode_frames: int
    phases: dict[str, float]
    available: float | None

    @property
    def peak(self) -> float:
        """The most of all phases, 0 without an estimate."""
        return max(self.phases.values(), default=0.0)

    @property
    def fits(self) -> bool:
        """Whether the device has as much."""
        return self.available is None or self.peak <= self.available


def plan_memory(
    parts: PartEstimates,
    *,
    available: float | None,
    offload: str = "auto",
    text_device: str = "auto",
    decode_frames: int | None = None,
) -> MemoryPlan:
    """The fastest way to run that fits into `available` GiB, or the one that needs least when none fits.

    offload, text_device, decode_frames: what is given is kept; "auto" and None are chosen.
    """
    levels = LEVELS if offload == "auto" else (offload,)
    text_devices = ("same", "block", "cpu") if text_device == "auto" else (text_device,)
    frames = DECODE_FRAMES if decode_frames is None else (decode_frames,)
    plan: MemoryPlan | None = None
    for level in levels:
        # Sampling and decoding first: they decide about the level, and the text encoder has a place of its own.
        chosen = _first_fitting([_plan(parts, level, "cpu", count, available) for count in frames])
        texts = [_plan(parts, level, where, chosen.decode_frames, available) for where in text_devices]
        plan = _first_fitting(texts)
        if plan.fits:
            return plan
    assert plan is not None  # there is a level
    return plan


def _first_fitting(plans: Sequence[MemoryPlan]) -> MemoryPlan:
    return next((plan for plan in plans if plan.fits), plans[-1])


def _plan(
    parts: PartEstimates, level: str, text_device: str, decode_frames: int, available: float | None
) -> MemoryPlan:
    phases: dict[str, float] = {}
    vae = None if parts.vae is None else parts.vae(decode_frames)
    model_weights, vae_weights = (0 if part is None else part.weights for part in (parts.model, vae))
    if parts.text is not None and text_device != "cpu":
        is_whole = text_device == "same" or parts.text.block is None
        phases["text"] = (parts.text.weights if is_whole else parts.text.block or 0) + parts.text.working
    if parts.model is not None:
        weights = {
            "none": model_weights + vae_weights,
            "model": model_weights,
            "block": model_weights if parts.model.block is None else parts.model.block,
        }[level]
        phases["sampling"] = weights + parts.model.working
    if vae is not None:
        phases["decoding"] = (model_weights if level == "none" else 0) + vae_weights + vae.working
    in_gib = {name: round(needed / GIB + MARGIN_GIB, 2) for name, needed in phases.items()}
    return MemoryPlan(level, text_device, decode_frames, in_gib, available)
