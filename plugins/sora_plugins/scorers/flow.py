"""How much moves: the mean size of optical flow between frames, on pictures of one size."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from sora_cli.data import sampling
from sora_cli.plugin.protocols import ClipFrames, Scores
from sora_cli.weights.load import fill_network, read_tensors

from .unimatch import UniMatch, form_of

if TYPE_CHECKING:
    from sora_cli.weights.locate import LocatedWeights

#: Pictures that flow is measured on, in landscape.
HEIGHT, WIDTH = 320, 576
#: `motion` looks at so many frames, so many seconds apart.
MOTION_FRAMES, MOTION_SECONDS = 4, 0.4
#: Flow of neighbouring pictures (N, 3, 320, 576) in 0..255: (N - 1, 2, 320, 576), in their pixels.
Measure = Callable[[Tensor], Tensor]


class FlowScorer:
    """Mean of |dx| and |dy| between neighbouring frames, in pixels of a picture of 576x320.

    Of frames 0, 10, 20 and 30 whatever the rate, as released models know it; with `seconds`, of frames so far apart.
    """

    def __init__(self, measure: Measure, *, column: str = "flow", seconds: float | None = None) -> None:
        self.measure, self.column, self.seconds = measure, column, seconds

    def frames(self, num_frames: int, fps: float) -> list[int]:
        """Four frames."""
        if self.seconds is None:
            return sampling.at_indices(num_frames, sampling.FLOW_INDICES)
        return sampling.every_seconds(num_frames, fps, self.seconds, count=MOTION_FRAMES)

    def score(self, clips: Sequence[ClipFrames]) -> list[Scores]:
        """One number a clip, none for a picture."""
        return [self._score(clip) for clip in clips]

    def _score(self, clip: ClipFrames) -> Scores:
        if clip.num_frames < 2:
            return {self.column: None, "reason": "a single picture has no motion"}
        flows = pair_flows(clip.frames, self.measure)
        if self.seconds is None:
            # Frames that a short clip repeats at its end move nowhere, and count by the definition of `flow`.
            return {self.column: float(flows.mean())}
        passed = float(clip.times[-1] - clip.times[0])
        if passed <= 0:
            return {self.column: None, "reason": "its frames have no times"}
        return {self.column: float(flows.sum()) * self.seconds / passed}


def flow_score(frames: NDArray[np.uint8], measure: Measure) -> float:
    """The mean of |dx| and |dy| over all pixels and neighbouring pairs of frames (N, H, W, 3) uint8, N at least 2."""
    return float(pair_flows(frames, measure).mean())


def pair_flows(frames: NDArray[np.uint8], measure: Measure) -> Tensor:
    """The same for each pair, (N - 1,)."""
    with torch.inference_mode():
        return measure(flow_pictures(frames)).abs().mean(dim=(1, 2, 3)).cpu()


def flow_pictures(frames: NDArray[np.uint8]) -> Tensor:
    """Frames (N, H, W, 3) uint8 as float32 (N, 3, 320, 576) in 0..255; those in portrait are transposed."""
    pictures = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float()
    if pictures.shape[-2] > pictures.shape[-1]:
        pictures = pictures.transpose(-2, -1)
    return F.interpolate(pictures, (HEIGHT, WIDTH), mode="bilinear", align_corners=True)


def search_flow(pictures: Tensor) -> Tensor:
    """A `Measure` that needs no weights; its scores are close to those of the network."""
    from .opencv_flow import dis_flow, grey

    greys = [grey(picture) for picture in pictures.round().byte().permute(0, 2, 3, 1).numpy()]
    flows = [dis_flow(first, second) for first, second in itertools.pairwise(greys)]
    return torch.from_numpy(np.stack(flows)).permute(0, 3, 1, 2)


def network_flow(network: UniMatch, device: torch.device) -> Measure:
    """A `Measure` of the network, which is on `device`."""

    def measure(pictures: Tensor) -> Tensor:
        pictures = pictures.to(device)
        flow: Tensor = network(pictures[:-1], pictures[1:])
        return flow

    return measure


def read_unimatch(files: Sequence[Path], device: torch.device) -> UniMatch:
    """The network of released files of UniMatch or GMFlow, in the form that they have; frozen, on `device`.

    Raises SoraError for files of something else.
    """
    tensors = read_tensors(files, wrappers=("model",))
    with torch.device("meta"):
        network = form_of(tensors)
    hint = "give the right file with --weights flow-unimatch.unimatch=FILE"
    return fill_network(network, tensors, source=files[0], title="UniMatch for flow", hint=hint).to(device)


def load(weights: Mapping[str, LocatedWeights], device: torch.device, options: None = None) -> FlowScorer:
    """Column `flow` by dense inverse search."""
    return FlowScorer(search_flow)


def load_motion(weights: Mapping[str, LocatedWeights], device: torch.device, options: None = None) -> FlowScorer:
    """Column `motion`: the same over 0.4 s, so that it does not depend on the rate of a clip."""
    return FlowScorer(search_flow, column="motion", seconds=MOTION_SECONDS)


def load_unimatch(weights: Mapping[str, LocatedWeights], device: torch.device, options: None = None) -> FlowScorer:
    """Column `flow` by the network. weights: "unimatch"."""
    return FlowScorer(network_flow(read_unimatch(weights["unimatch"].files, device), device))
