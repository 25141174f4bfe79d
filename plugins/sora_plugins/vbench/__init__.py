"""Scoring by the dimensions of VBench: computed here where that needs no foreign code, or by the package `vbench`."""

from __future__ import annotations

from sora_cli.plugin.hooks import hookimpl
from sora_cli.plugin.specs import ScoringBackendSpec, Weights
from sora_plugins.scorers import AESTHETIC_HEAD, CLIP_L14

CLIP_B32 = Weights(repo="openai/clip-vit-base-patch32", files=CLIP_L14.files, licence="MIT", size_gib=0.6)


@hookimpl
def sora_scoring_backends() -> list[ScoringBackendSpec]:
    """Both; the published rows come with the second."""
    return [
        ScoringBackendSpec(
            name="native",
            summary="what can be computed here: flicker, and with CLIP background, style and aesthetics",
            target="sora_plugins.vbench.native:load",
            weights={"clip-b32": CLIP_B32, "clip-l14": CLIP_L14, "head": AESTHETIC_HEAD},
        ),
        ScoringBackendSpec(
            name="vbench",
            summary="the package vbench in an environment of its own, on CUDA: all dimensions",
            target="sora_plugins.vbench.package:load",
            published="sora_plugins.vbench:published.json",
        ),
    ]
