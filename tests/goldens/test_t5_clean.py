"""Golden topic `t5_clean`: captions before the text encoder."""

from __future__ import annotations

import pytest
from loader import cases

from sora_cli.text.cleaning import clean_caption, fold_caption


@pytest.mark.parametrize("case", cases("t5_clean", "captions"))
def test_cleaning(case):
    assert clean_caption(case["input"], passes=1) == case["once"]
    assert clean_caption(case["input"]) == case["output"]
    if isinstance(case["input"], str):  # the reference folds nothing else
        assert fold_caption(case["input"]) == case["off"]
