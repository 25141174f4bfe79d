"""Quality measures of videos beside their originals: PSNR, SSIM, LPIPS and FloLPIPS."""

from __future__ import annotations

from collections.abc import Mapping

from sora_cli.plugin.hooks import hookimpl
from sora_cli.plugin.specs import MetricSpec, Weights

TORCHVISION = "https://download.pytorch.org/models"
TERMS = "BSD-3-Clause, beside the terms of ImageNet"
ALEXNET = Weights(
    url=TORCHVISION,
    files=("alexnet-owt-7be5be79.pth",),
    licence=TERMS,
    size_gib=0.23,
)
VGG16 = Weights(url=TORCHVISION, files=("vgg16-397923af.pth",), licence=TERMS, size_gib=0.52)
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
    loss: str | None = None,
) -> MetricSpec:
    """is_better: whether a higher value is."""
    return MetricSpec(
        name=name,
        summary=summary,
        target=f"sora_plugins.metrics.{target}",
        unit=unit,
        higher_is_better=is_better,
        weights=weights,
        loss=loss,
    )


@hookimpl
def sora_metrics() -> list[MetricSpec]:
    """Two that compare pixels, three that compare what a network sees in them."""
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
    ]
