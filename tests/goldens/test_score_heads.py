"""Golden topic `score_heads`: from CLIP's vectors to the aesthetic score and the match of a caption."""

from __future__ import annotations

import math

import torch
from filled import filled
from loader import load_tensors, read

from sora_plugins.scorers.aesthetic import AestheticHead, aesthetic_scores
from sora_plugins.scorers.matching import match_scores

TOPIC = "score_heads"


def test_aesthetic():
    tolerance = read(TOPIC, "cases")["aesthetic"]["tolerance"]
    tensors = load_tensors(TOPIC, "cases.safetensors")
    head = AestheticHead()
    assert list(head.state_dict()) == [f"layers.{i}.{kind}" for i in (0, 2, 4, 6, 7) for kind in ("weight", "bias")]
    head.load_state_dict(filled(head.state_dict(), 3.0), strict=True)
    features = tensors["clip_features"]
    scores = aesthetic_scores(features.flatten(0, 1), head.folded()).reshape(features.shape[:2])
    torch.testing.assert_close(scores.float(), tensors["frame_scores"], atol=tolerance, rtol=0)
    torch.testing.assert_close(scores.mean(dim=1).float(), tensors["scores"], atol=tolerance, rtol=0)


def test_match():
    case = read(TOPIC, "cases")["match"]
    tensors = load_tensors(TOPIC, "cases.safetensors")
    scale = math.exp(case["logit_scale_parameter"])
    scores = match_scores(tensors["image_features"], tensors["text_features"], scale)
    torch.testing.assert_close(scores, tensors["match"], atol=case["tolerance"], rtol=0)
