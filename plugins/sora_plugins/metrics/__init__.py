"""Quality measures: of videos beside their originals, of videos alone, and of sets of videos."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

from sora_cli.plugin.hooks import hookimpl
from sora_cli.plugin.specs import MetricSpec, Weights
from sora_plugins.scorers import CLIP_L14

TORCHVISION = "https://download.pytorch.org/models"
TERMS = "BSD-3-Clause, beside the terms of ImageNet"
ALEXNET = Weights(
    url=TORCHVISION,
    files=("alexnet-owt-7be5be79.pth",),
    licence=TERMS,
    size_gib=0.23,
)
VGG16 = Weights(url=TORCHVISION, files=("vgg16-397923af.pth",), licence=TERMS, size_gib=0.52)
INCEPTION = Weights(
    url="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights",
    files=("pt_inception-2015-12-05-6726825d.pth",),
    size_gib=0.09,
)
# Published on disks that people share, without a checksum.
I3D = Weights(
    files=("i3d_pretrained_400.pt",),
    by_hand="what https://github.com/wilson1yan/VideoGPT fetches to compute FVD",
    size_gib=0.05,
)
# The CLIP of the published CMMD; other measures look with that of the scores of clips.
CLIP_L14_336 = dataclasses.replace(CLIP_L14, repo="openai/clip-vit-large-patch14-336", licence="see the model page")
# Its server publishes no checksum, so the file is not downloaded by us.
PWC = Weights(
    files=("network-default.pytorch",),
    licence="CC BY-NC-SA 4.0",
    by_hand="http://content.sniklaus.com/github/pytorch-pwc/network-default.pytorch",
    size_gib=0.04,
)


def _spec(
    name: str,
    summary: str,
    target: str,
    weights: Mapping[str, Weights],
    *,
    unit: str = "",
    is_better: bool = False,
    subject: Literal["pair", "video", "sets"] = "pair",
    loss: str | None = None,
) -> MetricSpec:
    """is_better: whether a higher value is."""
    return MetricSpec(
        name=name,
        summary=summary,
        target=f"sora_plugins.metrics.{target}",
        unit=unit,
        higher_is_better=is_better,
        subject=subject,
        weights=weights,
        loss=loss,
    )


@hookimpl
def sora_metrics() -> list[MetricSpec]:
    """Of pairs: two of pixels, three of what a network sees. Of a video alone: one. Of sets: distances of features."""
    return [
        _spec(
            "psnr", "squared error of all colours, 100 for equal frames", "pixels:psnr", {}, unit="dB", is_better=True
        ),
        _spec("ssim", "structural similarity, mean of the three colours", "pixels:ssim", {}, is_better=True),
        _spec("lpips", "what AlexNet sees, place by place", "weights:load_lpips", {"alexnet": ALEXNET}),
        _spec(
            "lpips-vgg",
            "what VGG-16 sees: the training loss",
            "weights:load_lpips_vgg",
            {"vgg16": VGG16},
            loss="sora_plugins.metrics.weights:lpips_vgg_loss",
        ),
        _spec(
            "flolpips",
            "what AlexNet sees, weighted by differences of motion between frames",
            "weights:load_flolpips",
            {"alexnet": ALEXNET, "pwc": PWC},
        ),
        _spec(
            "flicker",
            "how alike neighbouring frames are, 1 for a still video; temporal_flickering of VBench",
            "pixels:flicker",
            {},
            is_better=True,
            subject="video",
        ),
        _spec(
            "fid",
            "FID: Frechet distance of two sets by what Inception sees in their frames",
            "distributions:load_fid",
            {"inception": INCEPTION},
            subject="sets",
        ),
        _spec(
            "fvd",
            "FVD: Frechet distance of two sets by what I3D sees in every 16 frames",
            "distributions:load_fvd",
            {"i3d": I3D},
            subject="sets",
        ),
        _spec(
            "clip-fd",
            "Frechet distance of two sets by what CLIP sees in their frames",
            "distributions:load_clip_distance",
            {"clip": CLIP_L14},
            subject="sets",
        ),
        _spec(
            "cmmd",
            "CMMD: maximum mean discrepancy of what CLIP sees in frames of two sets; needs fewer videos",
            "distributions:load_cmmd",
            {"clip336": CLIP_L14_336},
            subject="sets",
        ),
    ]
