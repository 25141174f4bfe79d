"""How well a caption fits a clip: the cosine of CLIP's vectors of its middle frame and of the caption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from sora_cli.data import sampling
from sora_cli.plugin.protocols import ClipFrames, Scores

from .clip import Clip, read_clip

if TYPE_CHECKING:
    from sora_cli.weights.locate import LocatedWeights


class MatchScorer:
    """Column `match`: 100 times the cosine with the released weights, typically 15 to 35."""

    def __init__(self, clip: Clip) -> None:
        self.clip = clip

    def frames(self, num_frames: int, fps: float) -> list[int]:
        """The middle one."""
        return sampling.at_points(num_frames, sampling.MATCH_POINTS)

    def score(self, clips: Sequence[ClipFrames]) -> list[Scores]:
        """None for clips without a caption."""
        captioned = [clip for clip in clips if clip.text and clip.text.strip()]
        pictures = self.clip.embed_pictures([clip.frames[0] for clip in captioned])
        texts = self.clip.embed_texts([clip.text or "" for clip in captioned])
        values = iter(match_scores(pictures, texts, self.clip.scale).tolist())
        missing: Scores = {"match": None, "reason": "it has no caption"}
        return [{"match": next(values)} if clip.text and clip.text.strip() else missing for clip in clips]


def match_scores(pictures: Tensor, texts: Tensor, scale: float) -> Tensor:
    """(N,): scale times the cosine of pairs of vectors (N, D)."""
    return scale * F.cosine_similarity(pictures, texts, dim=-1)


def load(weights: Mapping[str, LocatedWeights], device: torch.device, options: None = None) -> MatchScorer:
    """The scorer. weights: "clip"."""
    return MatchScorer(read_clip(weights["clip"], device, has_texts=True))
