"""Golden topic `score_text`: score sentences, and the whole text after cleaning."""

from __future__ import annotations

import pytest
from loader import cases

from sora_cli.text.cleaning import clean_caption
from sora_cli.text.scores import Scores, append_scores


@pytest.mark.parametrize("case", cases("score_text", "score_text"))
def test_score_text(case):
    appended = append_scores(case["prompt"], Scores(case["aes"], case["flow"], case["camera_motion"]))
    assert appended == case["appended"]
    assert clean_caption(appended) == case["cleaned"]
