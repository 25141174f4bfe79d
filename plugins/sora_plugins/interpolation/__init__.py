"""Frames between frames: by optical flow without weights, and by AMT-G."""

from __future__ import annotations

from sora_cli.plugin.hooks import hookimpl
from sora_cli.plugin.specs import InterpolatorSpec, Weights

AMT_G = Weights(repo="lalala125/AMT", files=("amt-g.pth",), licence="CC BY-NC 4.0", size_gib=0.12)


@hookimpl
def sora_interpolators() -> list[InterpolatorSpec]:
    """One that needs no download, and the network that Open-Sora uses."""
    return [
        InterpolatorSpec(
            name="flow",
            summary="both frames moved along OpenCV's optical flow, and mixed",
            target="sora_plugins.interpolation.interpolators:load_flow",
            needs=("cv2",),
            extra="data",
        ),
        InterpolatorSpec(
            name="amt-g",
            aliases=("amt",),
            summary="AMT-G: a network of 31 million parameters, slow without a GPU",
            target="sora_plugins.interpolation.interpolators:load_amt",
            is_network=True,
            weights={"amt": AMT_G},
        ),
    ]
