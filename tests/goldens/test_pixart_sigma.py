"""Golden topic `pixart_sigma`: PixArt-Sigma, with fewer keys and values, and normed queries and keys."""

from __future__ import annotations

import pytest
from image_networks import check_convert, check_forward, check_positions, of_topic

from sora_plugins.dit.pixart import build
from sora_plugins.dit.weights import convert

TOPIC = "pixart_sigma"


@pytest.mark.parametrize("case", of_topic(TOPIC, "forward"))
def test_forward(case):
    check_forward(TOPIC, case, build)


@pytest.mark.parametrize("case", of_topic(TOPIC, "positional_embeddings"))
def test_positions(case):
    check_positions(TOPIC, case, build)


@pytest.mark.parametrize("case", of_topic(TOPIC, "convert"))
def test_convert(case, tmp_path):
    check_convert(TOPIC, case, convert, tmp_path)
