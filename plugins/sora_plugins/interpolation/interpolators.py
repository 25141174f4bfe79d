"""What the specs name: ways to make frames between two (protocols.Interpolator)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from sora_cli.weights.load import fill_network, read_tensors

from .amt import MIN_SIDE, MULTIPLE, AmtG

if TYPE_CHECKING:
    from sora_cli.weights.locate import LocatedWeights

MIB = 2**20
#: Memory that the network was measured to need: so much besides, and so much for a picture of so many pixels.
BASE_BYTES, PICTURE_BYTES, PICTURE_PIXELS = 2500 * MIB, 1500 * MIB, 1024 * 512


class FlowInterpolator:
    """Two-way optical flow: both frames are fetched along it to the time between, and mixed by how near they are."""

    def between(self, first: NDArray[np.uint8], second: NDArray[np.uint8], doublings: int) -> list[NDArray[np.uint8]]:
        """See protocols.Interpolator; the flow is found once."""
        from sora_plugins.scorers.opencv_flow import dis_flow, grey

        greys = grey(first), grey(second)
        there, back = dis_flow(*greys), dis_flow(*greys[::-1])
        parts = 2**doublings
        return [_moved(first, second, there, back, index / parts) for index in range(1, parts)]


def _moved(
    first: NDArray[np.uint8],
    second: NDArray[np.uint8],
    there: NDArray[np.float32],
    back: NDArray[np.float32],
    time: float,
) -> NDArray[np.uint8]:
    """The frame at a time between 0 and 1, from flow (H, W, 2) of first to second and back.

    Flow from the time between is taken to be a mixture of both, as if motion were even and smooth in space.
    Source: Jiang et al. 2018, "Super SloMo", equation 4.
    """
    rest = 1 - time
    to_first = -rest * time * there + time * time * back
    to_second = rest * rest * there - time * rest * back
    mixed = rest * _fetched(first, to_first) + time * _fetched(second, to_second)
    return np.rint(mixed).astype(np.uint8)


def _fetched(frame: NDArray[np.uint8], flow: NDArray[np.float32]) -> NDArray[np.float32]:
    import cv2

    height, width = flow.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    places = x + flow[..., 0], y + flow[..., 1]
    found = cv2.remap(frame.astype(np.float32), *places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(found, dtype=np.float32)


class AmtInterpolator:
    """AMT-G: the middle of two frames, and the middles of those. memory_bytes: of the device, None for enough."""

    def __init__(self, network: AmtG, device: torch.device, memory_bytes: int | None = None) -> None:
        self.network, self.device, self.memory_bytes = network, device, memory_bytes

    @torch.inference_mode()
    def between(self, first: NDArray[np.uint8], second: NDArray[np.uint8], doublings: int) -> list[NDArray[np.uint8]]:
        """See protocols.Interpolator; what is made in between is not rounded before it is used."""
        height, width = first.shape[:2]
        parts = memory_parts(height, width, self.memory_bytes)
        pictures = [
            pad(torch.from_numpy(frame).to(self.device).permute(2, 0, 1)[None] / 255, parts)
            for frame in (first, second)
        ]
        for _ in range(doublings):
            pairs = itertools.pairwise(pictures)
            middles = [self.network(*pair, scale=MULTIPLE / parts) for pair in pairs]
            pictures = [one for pair in zip(pictures[:-1], middles, strict=True) for one in pair] + pictures[-1:]
        return [_frame(picture, height, width) for picture in pictures[1:-1]]


def memory_parts(height: int, width: int, memory_bytes: int | None) -> int:
    """Pictures are padded to multiples of this, and flow is found on them scaled by 16 / this; 16 with enough memory.

    memory_bytes: of the whole device, None for as much as is needed.
    """
    if memory_bytes is None:
        return MULTIPLE
    spare = max(memory_bytes - BASE_BYTES, MIB)
    area = min(1.0, PICTURE_PIXELS / (height * width) * math.sqrt(spare / PICTURE_BYTES))
    return math.floor(MULTIPLE / math.sqrt(area))


def pad(picture: Tensor, parts: int) -> Tensor:
    """(1, 3, H, W) with its edges repeated, half on each side, to sides that the network takes at 16 / parts."""
    least = MIN_SIDE // MULTIPLE * parts
    height, width = (max(-(-side // parts) * parts, least) - side for side in picture.shape[-2:])
    margins = (width // 2, width - width // 2, height // 2, height - height // 2)
    return F.pad(picture, margins, mode="replicate")


def _frame(picture: Tensor, height: int, width: int) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 without what `pad` added; rounded, not cut off, so that colours keep their mean."""
    top, left = ((have - want) // 2 for have, want in zip(picture.shape[-2:], (height, width), strict=True))
    cut = picture[0, :, top : top + height, left : left + width]
    frame: NDArray[np.uint8] = (cut * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return frame


def load_flow(weights: Mapping[str, LocatedWeights], device: torch.device) -> FlowInterpolator:
    """The one without weights."""
    return FlowInterpolator()


def load_amt(weights: Mapping[str, LocatedWeights], device: torch.device) -> AmtInterpolator:
    """AMT-G. weights: "amt". Raises SoraError for a file of something else."""
    files, device = weights["amt"].files, torch.device(device)
    with torch.device("meta"):
        network = AmtG()
    hint = "give the right file with --weights"
    network = fill_network(network, read_tensors(files), source=files[0], title="AMT-G", hint=hint).to(device)
    memory = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None
    return AmtInterpolator(network, device, memory)
