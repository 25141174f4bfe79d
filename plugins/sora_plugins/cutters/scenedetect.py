"""The detectors of PySceneDetect, on frames of about 256 pixels width, which is what they look at."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Shortest side of what PySceneDetect compares, and that of a rough look.
WIDTH, ROUGH_WIDTH = 256, 128


class Options(BaseModel):
    """Options of all of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    threshold: float | None = Field(None, gt=0, description="how different frames must be; default the detector's own")
    min_scene_frames: int = Field(15, ge=1, description="frames from one cut to the next at least")


class Detector:
    """A detector behind the interface of `sora_cli.plugin.protocols.Cutter`."""

    def __init__(self, make: Callable[[], Any], *, width: int = WIDTH, is_rough: bool = False) -> None:
        self.make, self.width, self.is_rough = make, width, is_rough

    def frame_size(self, height: int, width: int) -> tuple[int, int]:
        """Reduced by a whole factor or so to the width that it looks at; see `compute_downscale_factor`."""
        scale = max(1.0, width / self.width)
        return max(2, round(height / scale)), max(2, round(width / scale))

    def scenes(self, frames: Iterator[NDArray[np.uint8]], fps: float) -> list[tuple[int, int]]:
        """One after the other without a gap."""
        from scenedetect import FrameTimecode

        detector, found, number = self.make(), [], -1
        for number, frame in enumerate(frames):
            found += detector.process_frame(FrameTimecode(number, fps), frame[:, :, ::-1])
        if number >= 0:
            found += detector.post_process(FrameTimecode(number, fps))
        bounds = [0, *sorted({cut.frame_num for cut in found} - {0}), number + 1]
        return list(itertools.pairwise(bounds))


def _arguments(options: Options | None, name: str) -> dict[str, Any]:
    """Arguments of a detector whose threshold has this name."""
    given = options or Options()
    return {"min_scene_len": given.min_scene_frames, **({} if given.threshold is None else {name: given.threshold})}


def _loader(kind: str, name: str = "threshold", **settings: Any) -> Callable[[Mapping[str, Any], Any, Any], Detector]:
    def load(weights: Mapping[str, Any], device: Any, options: Options | None) -> Detector:
        import scenedetect

        make = getattr(scenedetect, kind)
        return Detector(lambda: make(**_arguments(options, name)), **settings)

    return load


load_adaptive = _loader("AdaptiveDetector", "adaptive_threshold")
load_fast = _loader("AdaptiveDetector", "adaptive_threshold", width=ROUGH_WIDTH, is_rough=True)
load_content = _loader("ContentDetector")
load_threshold = _loader("ThresholdDetector")
load_histogram = _loader("HistogramDetector")
load_hash = _loader("HashDetector")
