"""What fits where."""

from __future__ import annotations

import pytest

from sora_cli.acceleration.memory_plan import GIB, MARGIN_GIB, PartEstimates, plan_memory
from sora_cli.plugin.specs import PartMemory


def gib(weights: float, working: float, block: float | None = None) -> PartMemory:
    return PartMemory(int(weights * GIB), int(working * GIB), None if block is None else int(block * GIB))


PARTS = PartEstimates(text=gib(18, 1, 2), model=gib(3, 2, 0.5), vae=lambda frames: gib(1, 0.5 + 0.5 * frames))


@pytest.mark.parametrize(
    ("available", "offload", "text", "frames"),
    [
        (None, "none", "same", 4),
        (80, "none", "same", 4),
        (19.9, "none", "same", 4),  # the text encoder is gone before the rest comes
        (12, "none", "block", 4),
        (7.4, "none", "block", 4),
        (7.0, "none", "block", 2),
        (5.9, "model", "block", 4),
        (4.0, "block", "block", 2),
        (3.5, "block", "cpu", 2),
    ],
)
def test_the_fastest_way_that_fits(available, offload, text, frames):
    plan = plan_memory(PARTS, available=available)
    assert (plan.offload, plan.text_device, plan.decode_frames) == (offload, text, frames)
    assert plan.fits


def test_phases():
    phases = plan_memory(PARTS, available=80, decode_frames=1).phases
    expected = {"text": 19, "sampling": 6, "decoding": 5}
    assert phases == pytest.approx({name: value + MARGIN_GIB for name, value in expected.items()}, abs=0.01)


def test_what_was_asked_for_is_kept():
    plan = plan_memory(PARTS, available=5, offload="none", text_device="same", decode_frames=4)
    assert (plan.offload, plan.text_device, plan.decode_frames) == ("none", "same", 4)
    assert not plan.fits
    assert plan.peak == pytest.approx(19 + MARGIN_GIB, abs=0.01)


def test_nothing_fits():
    plan = plan_memory(PARTS, available=1)
    assert not plan.fits
    assert plan.offload == "block"


def test_parts_without_estimate():
    assert plan_memory(PartEstimates(None, None, None), available=1).fits


def test_released_model_on_small_cards():
    """720p 4s in 8 GiB and 480p 2s in 6 GiB."""
    from sora_plugins.opensora_vae.memory import decode_memory
    from sora_plugins.opensora_vae.sizes import latent_frames
    from sora_plugins.stdit import sora_models
    from sora_plugins.stdit.memory import network_memory
    from sora_plugins.t5.memory import encode_memory

    config = sora_models()[0].variants["XL/2"]
    for height, width, frames, card in ((720, 1280, 102, 8.0), (480, 848, 51, 6.0)):
        latent = (4, latent_frames(frames), height // 8, width // 8)

        def vae(count: int, height: int = height, width: int = width, frames: int = frames) -> PartMemory:
            return decode_memory({}, height=height, width=width, num_frames=frames, frames_at_once=count, dtype_bytes=2)

        parts = PartEstimates(
            text=encode_memory({}, prompts=1, dtype="fp32"),
            model=network_memory(config, latent_shape=latent, rows=2, text_tokens=300, dtype_bytes=2),
            vae=vae,
        )
        plan = plan_memory(parts, available=card)
        assert plan.fits, plan
        assert plan_memory(parts, available=80).offload == "none"


def test_without_estimates_nothing_is_claimed():
    plan = plan_memory(PartEstimates(None, None, None), available=8.0)
    assert (plan.phases, plan.fits) == ({}, True)
