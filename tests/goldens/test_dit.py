"""Golden topic `dit`: DiT of pictures and clips, of classes and of text."""

from __future__ import annotations

import pytest
from image_networks import (
    check_convert,
    check_forward,
    check_guidance,
    check_null,
    check_positions,
    check_timesteps,
    of_topic,
)

from sora_plugins.dit.dit import build
from sora_plugins.dit.weights import convert

TOPIC = "dit"


@pytest.mark.parametrize("case", of_topic(TOPIC, "forward"))
def test_forward(case):
    check_forward(TOPIC, case, build)


@pytest.mark.parametrize("case", of_topic(TOPIC, "guidance_iddpm", "guidance_dpm"))
def test_guidance(case):
    check_guidance(TOPIC, case, build)


@pytest.mark.parametrize("case", of_topic(TOPIC, "positional_embeddings"))
def test_positions(case):
    check_positions(TOPIC, case, build)


@pytest.mark.parametrize("case", of_topic(TOPIC, "timestep_sinusoid"))
def test_timesteps(case):
    check_timesteps(TOPIC, case)


@pytest.mark.parametrize("case", of_topic(TOPIC, "null_embedding"))
def test_null(case):
    check_null(TOPIC, case, build)


@pytest.mark.parametrize("case", of_topic(TOPIC, "convert"))
def test_convert(case, tmp_path):
    check_convert(TOPIC, case, convert, tmp_path)
