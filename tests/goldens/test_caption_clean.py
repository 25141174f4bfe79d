"""Golden topic `caption_clean`: cleaning, stock openings, camera motion and tags."""

from __future__ import annotations

import pytest
from loader import cases

from sora_cli.text.captions import append_camera_motion, parse_tags, strip_opening
from sora_cli.text.cleaning import clean_caption


@pytest.mark.parametrize("case", cases("caption_clean", "cases", "clean"))
def test_clean(case):
    assert clean_caption(case["in"], passes=1) == case["once"]
    assert clean_caption(case["in"]) == case["twice"]


@pytest.mark.parametrize("case", cases("caption_clean", "cases", "strip_prefix"))
def test_openings(case):
    assert strip_opening(case["in"]) == case["out"]


@pytest.mark.parametrize("case", cases("caption_clean", "cases", "append_camera_motion"))
def test_camera_motion(case):
    assert append_camera_motion(*case["in"]) == case["out"]


@pytest.mark.parametrize("case", cases("caption_clean", "cases", "parse_tags"))
def test_tags(case):
    assert parse_tags(case["in"]) == case["out"]
