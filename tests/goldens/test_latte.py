"""Golden topic `latte`: Latte of classes and of text."""

from __future__ import annotations

import pytest
from image_networks import check_convert, check_forward, check_guidance, check_positions, of_topic

from sora_plugins.dit.latte import build
from sora_plugins.dit.layers import OVER_FRAMES, WITHIN_FRAMES
from sora_plugins.dit.weights import convert

TOPIC = "latte"


@pytest.mark.parametrize("case", of_topic(TOPIC, "forward"))
def test_forward(case):
    check_forward(TOPIC, case, build, axes=lambda block: OVER_FRAMES if block % 2 else WITHIN_FRAMES)


@pytest.mark.parametrize("case", of_topic(TOPIC, "guidance_iddpm", "guidance_dpm"))
def test_guidance(case):
    check_guidance(TOPIC, case, build)


@pytest.mark.parametrize("case", of_topic(TOPIC, "positional_embeddings"))
def test_positions(case):
    check_positions(TOPIC, case, build)


@pytest.mark.parametrize("case", of_topic(TOPIC, "convert"))
def test_convert(case, tmp_path):
    check_convert(TOPIC, case, convert, tmp_path)
