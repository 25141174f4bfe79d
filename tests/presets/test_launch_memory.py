"""The memory that launch presets tell of is what the memory plan says."""

from __future__ import annotations

import pytest

from sora_cli.acceleration.memory_plan import plan_memory
from sora_cli.config.resolve import resolve_generate
from sora_cli.plugin.manager import get_plugins
from sora_cli.presets import load_preset
from sora_cli.tasks.plan import ComponentWeights, find_components
from sora_cli.tasks.run_memory import run_estimates
from sora_cli.video.shapes import resolve_shape

MODEL = "opensora-v1.2"
ENTRIES = load_preset("launch", MODEL)


def planned_gib(when, run):
    """Peak of an entry's run on a GPU as large as it asks for, with the weights of the model's first variant."""
    shape = {"resolution": when["resolution"], "duration": when["duration"]}
    flags = {
        "prompt": {"prompts": ("x",)},
        "model": {"name": MODEL, "dtype": run["dtype"]},
        "shape": shape,
        "hardware": {"sequence_parallel": run["sequence"], "device": "cpu", "gpus": run["processes"]},
    }
    config = resolve_generate(flags, plugins=get_plugins()).config
    parts = find_components(config, get_plugins())
    clip = resolve_shape(config.shape, parts.model.constraints, config.shape.fps)
    variant = next(iter(parts.model.variants.values()))
    estimates = run_estimates(config, parts, ComponentWeights(None, None, None), clip, variant, "fp32")
    return plan_memory(estimates, available=when["min_memory_gib"], offload=run["offload"])


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if entry.expect], ids=lambda entry: f"#{entry.number}")
def test_estimates_are_those_of_the_plan(entry):
    assert entry.expect["source"] == "estimated"
    plan = planned_gib(entry.when, entry.run)
    assert plan.fits
    assert entry.expect["memory_gib"] == pytest.approx(plan.peak, abs=0.1)


def test_every_named_clip_has_an_entry():
    named = {(entry.when["resolution"], entry.when["duration"]) for entry in ENTRIES if entry.expect}
    assert named == {
        (resolution, duration)
        for resolution in ("144p", "240p", "360p", "480p", "720p", "1080p")
        for duration in ("2s", "4s", "8s", "16s")
    }
