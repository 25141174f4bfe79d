"""Where a video goes on in frames of an autoencoder: what that loses is carried over from the last frame before.

An autoencoder gives back the given frames not quite as they are, so that between the last of them and the first new
frame there is a step that is no movement. The difference is known at the last given frame, which is decoded too. It is
added to the new frames as far as it still holds there: by the weight of a Wiener filter, whose noise is how much the
picture changes, and less from frame to frame. So what stands keeps its detail, and what moves leaves no ghost behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: New frames that get less and less of the difference.
FADE = 16
#: Rows of cells in which changes and differences are compared: 6 pixels at 144p.
ROWS = 24
#: How much of the step into the new part may be taken from it, and over how many frames, where it is larger than any
#: step before. More would show two pictures at once where the new part is something else.
MOST_EASED = 0.25
EASED_FRAMES = 4
#: First frames of a video that is led to whose steps tell how much it moves.
LOOKED_AT = 48


class Seam:
    """Leads from given frames to new ones, which come in pieces of any length; the result depends on none of them.

    Frames are (T, H, W, 3) uint8, all of one size.
    """

    def __init__(self, new: int) -> None:
        """new: frames of the new part."""
        self.fade = min(FADE, new)
        self.last: Tensor | None = None
        self.largest = 0.0
        self._moved = self._decoded = self._lost = self._energy = self._weight = self._eased = torch.zeros(())
        self._place = 0

    def add_given(self, frames: NDArray[np.uint8]) -> None:
        """The next given frames: the last of them and their largest step count."""
        for frame in map(_float, frames):  # one at a time: four times as large
            if self.last is not None:
                self.largest = max(self.largest, _step(self.last, frame))
                self._moved = _energy(frame - self.last)
            self.last = frame

    def add_decoded(self, frame: NDArray[np.uint8]) -> None:
        """The last given frame (H, W, 3) as it was decoded."""
        assert self.last is not None  # it was given
        self._decoded = _float(frame)
        self._lost = self.last - self._decoded
        self._energy = _energy(self._lost)
        self._weight = torch.ones_like(self._energy)

    def lead(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The next new frames, with what the autoencoder lost."""
        count = min(len(frames), self.fade - self._place)
        if count <= 0:
            return frames
        result = frames.copy()
        for place in range(count):
            led = self._lead(_float(frames[place]))
            result[place] = led.round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
        return result

    def _lead(self, frame: Tensor) -> Tensor:
        changed = _energy(frame - self._decoded)
        if self._place:  # a decoded picture moves less than a real one
            changed = changed + self._moved
        # What has moved away does not come back when the picture looks the same again for a moment.
        self._weight = torch.minimum(self._weight, self._energy / (self._energy + changed).clamp(min=1e-6))
        weight = F.interpolate(self._weight[None], frame.shape[1:], mode="bilinear")[0]
        frame = frame + (1 - self._place / self.fade) * weight * self._lost
        if self._place == 0:
            assert self.last is not None
            excess = 1 - self.largest / max(_step(self.last, frame), 1e-6)
            self._eased = min(max(excess, 0.0), MOST_EASED) * (self.last - frame)
        frame = frame + max(0.0, 1 - self._place / EASED_FRAMES) * self._eased
        self._place += 1
        return frame


def lead_to(new: NDArray[np.uint8], decoded: NDArray[np.uint8], given: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The last new frames (T, H, W, 3) before a video, led to it: the same backwards in time.

    decoded: its first frame as it was decoded, (H, W, 3); given: its first frames.
    """
    seam = Seam(len(new))
    seam.add_given(np.ascontiguousarray(given[::-1]))
    seam.add_decoded(decoded)
    return np.ascontiguousarray(seam.lead(np.ascontiguousarray(new[::-1]))[::-1])


def _float(frame: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(frame).permute(2, 0, 1).float()


def _step(before: Tensor, after: Tensor) -> float:
    return float((after - before).abs().mean())


def _energy(difference: Tensor) -> Tensor:
    """Mean square (1, rows, columns) of a difference (3, H, W) in cells."""
    height, width = difference.shape[1:]
    rows = min(ROWS, height)
    return F.adaptive_avg_pool2d(difference.square().mean(dim=0, keepdim=True), (rows, max(1, width * rows // height)))
