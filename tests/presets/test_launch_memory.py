"""The memory that launch presets tell of is what the memory plan says."""

from __future__ import annotations

import pytest

from sora_cli.acceleration.memory_plan import plan_memory
from sora_cli.config.resolve import resolve_generate
from sora_cli.plugin.manager import get_plugins
from sora_cli.presets import list_presets, load_preset
from sora_cli.tasks.chosen import ComponentWeights, find_components
from sora_cli.tasks.run_memory import run_estimates
from sora_cli.video.shapes import resolutions, resolve_shape

#: nano's table is of whole processes on a CPU.
MODELS = sorted({info.name for info in list_presets() if info.kind == "launch"} - {"nano"})
ENTRIES = [(model, entry) for model in MODELS for entry in load_preset("launch", model)]
#: Sizes and lengths that the tables have, by model; None: pictures, or clips of one length.
NAMED = {
    "opensora-v1.2": (("144p", "240p", "360p", "480p", "720p", "1080p"), ("2s", "4s", "8s", "16s")),
    "opensora-v1.1": (("144p", "240p", "360p", "480p", "720p"), ("2s", "4s", "8s")),
    "opensora-v1.0": (("256", "512"), ("2s", "4s", "16s")),
}


def plan_of(model, when, run):
    """The plan of an entry's run on a GPU as large as it asks for, with the weights of the model's first variant."""
    shape = {"resolution": when["resolution"], "duration": when.get("duration")}
    if resolutions()[when["resolution"]].family == "pixart":
        shape["aspect_ratio"] = "1:1"
    flags = {
        "prompt": {"prompts": ("x",)},
        "model": {"name": model, "dtype": run["dtype"]},
        "shape": shape,
        "hardware": {"sequence_parallel": run["sequence"], "device": "cpu", "gpus": run["processes"]},
    }
    config = resolve_generate(flags, plugins=get_plugins()).config
    parts = find_components(config, get_plugins())
    clip = resolve_shape(config.shape, parts.model.constraints, config.shape.fps)
    variant = next(iter(parts.model.variants.values()))
    text_dtype = parts.text_encoder.dtypes[0]
    estimates = run_estimates(config, parts, ComponentWeights(None, None, None), clip, variant, text_dtype)
    return plan_memory(estimates, available=when["min_memory_gib"], offload=run["offload"])


@pytest.mark.parametrize(
    ("model", "entry"),
    [(model, entry) for model, entry in ENTRIES if entry.expect],
    ids=lambda part: part if isinstance(part, str) else f"#{part.number}",
)
def test_estimates_are_those_of_the_plan(model, entry):
    assert entry.expect["source"] == "estimated"
    plan = plan_of(model, entry.when, entry.run)
    assert plan.fits
    assert entry.expect["memory_gib"] == pytest.approx(plan.peak, abs=0.1)


@pytest.mark.parametrize("model", MODELS)
def test_every_named_clip_has_an_entry(model):
    named = [
        (entry.when["resolution"], entry.when.get("duration"))
        for name, entry in ENTRIES
        if name == model
        if entry.expect
    ]
    trained = get_plugins().get("model", model).constraints.trained_sizes
    sizes, lengths = NAMED.get(model, (tuple(size.resolution for size in trained), (None,)))
    assert named == [(resolution, duration) for resolution in sizes for duration in lengths]


@pytest.mark.parametrize("model", MODELS)
def test_only_models_that_can_be_split_share_clips(model):
    shares = {entry.run["sequence"] for name, entry in ENTRIES if name == model} - {1}
    assert bool(shares) == (get_plugins().get("model", model).shard is not None)
