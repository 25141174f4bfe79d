"""A tiny set of plugins for the tests of settings: two models, two schedulers, and what they need."""

from __future__ import annotations

import pytest

from sora_cli.errors import unknown_name
from sora_cli.launch import machine
from sora_cli.plugin.specs import (
    Constraints,
    ModelSpec,
    ParallelismSpec,
    PresetSource,
    SchedulerSpec,
    TextEncoderSpec,
    VAESpec,
)


class FakePlugins:
    """What `resolve_generate` uses of the plugin manager."""

    def __init__(self, by_kind):
        self.by_kind = by_kind

    def specs(self, kind):
        return self.by_kind.get(kind, {})

    def get(self, kind, name):
        for spec in self.specs(kind).values():
            if name in (spec.name, *spec.aliases):
                return spec
        raise unknown_name(kind, name, self.specs(kind))

    def add(self, kind, spec):
        self.by_kind.setdefault(kind, {})[spec.name] = spec


def _model(name, **more):
    facts = {
        "summary": "a model",
        "tasks": ("t2v",),
        "target": "nowhere:build",
        "variants": {"base": {}, "large": {}},
        "scheduler": "flow",
        "vae": "blocks",
        "text_encoder": "words",
    }
    return ModelSpec(name=name, **(facts | more))


@pytest.fixture
def plugins():
    """`tiny` (options, 17-frame steps) and `giant` (needs 40 GiB); schedulers `flow` and `steps`."""
    found = FakePlugins({})
    tiny = {
        "aliases": ("small",),
        "options": "tiny_options:TinyOptions",
        "constraints": Constraints(first_frames=1, frame_step=1, max_frames=408, trained="144p"),
    }
    found.add("model", _model("tiny", **tiny))
    found.add("model", _model("giant", rank=5, auto_memory_gib=40.0))
    flow = {"summary": "s", "target": "t:t", "prediction": "velocity", "options": "tiny_options:FlowOptions"}
    found.add("scheduler", SchedulerSpec(name="flow", aliases=("f",), default_steps=30, **flow))
    found.add("scheduler", SchedulerSpec(name="steps", default_steps=100, **(flow | {"options": None})))
    vae = {"summary": "s", "target": "t:t", "latent_channels": 4, "spatial_stride": 8, "temporal_stride": 4}
    found.add("vae", VAESpec(name="blocks", latent_frames=lambda count: count, **vae))
    found.add("vae", VAESpec(name="frames", latent_frames=lambda count: count, **vae))
    found.add("text-encoder", TextEncoderSpec(name="words", summary="s", target="t:t", width=8, max_tokens=8))
    found.add("parallelism", ParallelismSpec(name="single", summary="s", target="t:t"))
    return found


@pytest.fixture
def with_presets(plugins, tmp_path, monkeypatch):
    """Adds a plugin package with preset files: `with_presets({"models/tiny.yaml": "..."})`."""
    package = tmp_path / "packages" / "extra_presets"

    def add(files):
        for name, text in files.items():
            path = package / "presets" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        (package / "__init__.py").touch()
        monkeypatch.syspath_prepend(str(package.parent))
        plugins.add("presets", PresetSource(name="extra", summary="s", package="extra_presets"))
        return package

    return add


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    """A machine without GPUs, unless a test says otherwise."""
    monkeypatch.setattr(machine, "gpus", lambda: ())


@pytest.fixture
def gpus(monkeypatch):
    """`gpus(2, 80)`: a machine with two GPUs of 80 GiB."""

    def have(count, memory_gib):
        monkeypatch.setattr(
            machine, "gpus", lambda: tuple(machine.Gpu("H100", memory_gib, memory_gib) for _ in range(count))
        )

    return have
