"""The caption that a use of a clip gets: one of those in the table, with its scores.

What is drawn is a hash of seed, epoch and row, so every epoch draws anew and a resumed run draws the same.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from sora_cli.text.captions import camera_words
from sora_cli.text.scores import Scores, append_scores

from .buckets import hashed_uniforms
from .table import ClipRow


class CaptionOptions(NamedTuple):
    """How captions are drawn; see the fields of the same names in the data settings."""

    seed: int
    score_captions: bool = False
    score_drop: float = 0.2


def draw_uniform(seed: int, epoch: int, row: int, what: str) -> float:
    """A number in [0, 1) for one purpose."""
    return float(hashed_uniforms(np.array([row]), (seed, epoch, what))[0])


def draw_caption(row: int, clip: ClipRow, epoch: int, options: CaptionOptions) -> str:
    """One of the captions, with the scores in the words of the sampler, each left out with the chance asked for."""
    texts = clip.texts or ("",)
    text = texts[0]
    if len(texts) > 1:
        text = texts[int(draw_uniform(options.seed, epoch, row, "caption") * len(texts))]
    if not options.score_captions:
        return text
    scores = clip.scores._replace(camera=camera_words(clip.scores.camera))
    kept: dict[str, Any] = {
        name: value
        for name, value in scores._asdict().items()
        if value is not None and draw_uniform(options.seed, epoch, row, f"score {name}") >= options.score_drop
    }
    return append_scores(text, Scores(**kept))


def with_motion(text: str, clip: ClipRow) -> str:
    """A caption that names the measured motion score and the camera's motion first, where the table has them.

    It is for what depends on the text: noise that follows the motion has to follow the clip's, whether the caption says
    it or not.
    """
    camera, motion = camera_words(clip.scores.camera), clip.scores.motion
    said = "" if motion is None else f"measured motion score: {motion:.2f}. "
    return said + ("" if camera is None else f"camera motion: {camera}. ") + text
