"""Faults of a plugin that show while it works: the message names it, and nothing else suffers."""

from __future__ import annotations

import pytest

from sora_cli.plugin.blame import in_words

SOURCE = """
from sora_cli import SchedulerSpec, TextEncoderSpec, UpscalerSpec, VAESpec, hookimpl

@hookimpl
def sora_schedulers():
    names = ("Raises", "GivesNothing", "GivesLess", "TakesNothing", "HasNothing", "nowhere")
    return [
        SchedulerSpec(name=name, summary="s", target=f"sora_acme_module:{name}", prediction="velocity")
        for name in names
    ]

class Raises:
    def __init__(self, options):
        pass
    def schedule(self, steps, **size):
        import torch
        return torch.arange(steps, 0, -1)
    def sample(self, model, request, **options):
        raise ValueError("in the middle")

class GivesNothing(Raises):
    def sample(self, model, request, **options):
        pass

class GivesLess(Raises):
    def sample(self, model, request, **options):
        return request.noise[0]

class TakesNothing(Raises):
    def __init__(self):
        pass

class HasNothing:
    def __init__(self, options):
        pass

@hookimpl
def sora_upscalers():
    return [UpscalerSpec(name="as-it-is", summary="s", target="sora_acme_module:as_it_is")]

def as_it_is(weights, device, dtype):
    return lambda frames, size: frames
"""
WHOSE = "of plugin 'acme' (sora-acme 1.0)"
FAULTS = {
    "Raises": "plugin 'acme' (sora-acme 1.0), sora_acme_module.py line 19: ValueError: in the middle",
    "GivesNothing": f"scheduler 'GivesNothing' {WHOSE} sampled NoneType, not latents (1, 3, 5, 4, 6)",
    "GivesLess": f"scheduler 'GivesLess' {WHOSE} sampled (3, 5, 4, 6), not latents (1, 3, 5, 4, 6)",
    "TakesNothing": f"scheduler 'TakesNothing' {WHOSE}: its target cannot be called: too many positional arguments",
    "HasNothing": f"scheduler 'HasNothing' {WHOSE}: its target gave HasNothing, without sample",
    "nowhere": "nowhere: sora_acme_module:nowhere cannot be imported: module 'sora_acme_module' has no attribute",
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_names_its_plugin(name: str, install_plugin, fake_plugin, sora, tmp_path) -> None:
    install_plugin("acme", SOURCE)
    finished = sora("generate", "x", "-m", "fake", "--scheduler", name, "-o", str(tmp_path / "x.mp4"))
    assert finished.code == 1
    assert f"error: {FAULTS[name]}" in finished.err
    assert "plugin 'acme' (sora-acme 1.0)" in finished.err
    assert "Traceback" not in finished.err
    assert not (tmp_path / "x.mp4").exists()


def test_frames_of_a_wrong_size_are_not_written(install_plugin, sora, tmp_path) -> None:
    install_plugin("acme", SOURCE)
    size = ["--frames", "1", "--steps", "1", "--size", "288x512"]
    finished = sora("generate", "x", "-m", "nano", *size, "--upscaler", "as-it-is", "-o", str(tmp_path / "x.png"))
    wanted = "gave frames of uint8 (1, 144, 256, 3), not uint8 (1, 288, 512, 3)"
    assert f"error: upscaler 'as-it-is' {WHOSE} {wanted}" in finished.err
    assert not (tmp_path / "x.png").exists()


def test_our_own_plugins_and_libraries_are_not_blamed() -> None:
    import json

    from sora_plugins.labels.labels import load_ids

    for call in (lambda: json.loads("{"), lambda: load_ids(None, "cpu", None).encode(None)):
        with pytest.raises((ValueError, TypeError)) as caught:
            call()
        assert in_words(caught.value) == f"{type(caught.value).__name__}: {caught.value}"
