"""How likely a picture is not safe for work: Yahoo's open_nsfw, as an ONNX file, through onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sora_cli.errors import SoraError

from .options import FramesOptions
from .pictures import Measure, Picture, PictureScorer

if TYPE_CHECKING:
    import torch

    from sora_cli.weights.locate import LocatedWeights

#: Pictures are resized to the one and the middle is cut out to the other.
RESIZED, SIZE = 256, 224
#: What is taken off blue, green and red in 0..255.
MEAN = np.array([104, 117, 123], dtype=np.float32)


def load(
    weights: Mapping[str, LocatedWeights], device: torch.device, options: FramesOptions | None = None
) -> PictureScorer:
    """Column `nsfw`, 0 to 1: the most of 1 to 3 frames. weights: "nsfw". It runs on the CPU."""
    session = read_session(weights["nsfw"])
    return PictureScorer(_measure(session), count=(options or FramesOptions()).frames, combine=np.max)


def read_session(weights: LocatedWeights) -> Any:
    """An onnxruntime session of the file, on as many threads as torch uses. Raises SoraError for other files."""
    import onnxruntime
    import torch

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    file = weights.files[0]
    try:
        session = onnxruntime.InferenceSession(str(file), settings, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common class that it names
        hint = "give open-nsfw.onnx with --weights nsfw.nsfw=FILE"
        raise SoraError(f"cannot read the network in {file}: {error}", hint=hint) from error
    return session


def _measure(session: Any) -> Measure:
    [given] = session.get_inputs()

    def measure(pictures: Sequence[Picture]) -> Mapping[str, Sequence[float]]:
        values = [session.run(None, {given.name: prepare(picture)[None]})[0][0, 1] for picture in pictures]
        return {"nsfw": [float(value) for value in values]}

    return measure


def prepare(picture: Picture) -> NDArray[np.float32]:
    """(224, 224, 3) float32, blue, green, red, of an RGB picture (H, W, 3)."""
    from PIL import Image

    whole = np.asarray(Image.fromarray(picture).resize((RESIZED, RESIZED), Image.Resampling.BILINEAR))
    edge = (RESIZED - SIZE) // 2
    middle = whole[edge : edge + SIZE, edge : edge + SIZE, ::-1]
    return middle.astype(np.float32) - MEAN
