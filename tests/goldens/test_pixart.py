"""Golden topic `pixart`: PixArt-alpha of pictures and clips, and PixArt-MS."""

from __future__ import annotations

import pytest
from image_networks import (
    CPU,
    check_convert,
    check_forward,
    check_guidance,
    check_null,
    check_positions,
    close,
    of_topic,
    tensors_of,
)
from loader import read

from sora_plugins.dit.layers import frame_table, plane_table
from sora_plugins.dit.pixart import build
from sora_plugins.dit.weights import convert

TOPIC = "pixart"


def builder(case):
    """How the network of a case is built."""
    has_sizes = bool(case) and read(TOPIC, case["group"])["model"] == "PixArtMS"
    return lambda config: build({**config, "has_size_conditions": has_sizes})


@pytest.mark.parametrize("case", of_topic(TOPIC, "forward"))
def test_forward(case):
    check_forward(TOPIC, case, builder(case))


@pytest.mark.parametrize("case", of_topic(TOPIC, "guidance_iddpm", "guidance_dpm"))
def test_guidance(case):
    check_guidance(TOPIC, case, builder(case))


@pytest.mark.parametrize("case", of_topic(TOPIC, "positional_embeddings"))
def test_positions(case):
    check_positions(TOPIC, case, builder(case))


@pytest.mark.parametrize("case", of_topic(TOPIC, "pos_embed_2d", "pos_embed_2d_sampled"))
def test_plane_table(case):
    given, expected = tensors_of(TOPIC, case)
    sizes = case["params"]
    rows, columns = sizes["h"], sizes["w"]
    table = plane_table(sizes["dim"], rows, columns, scale=sizes["scale"], base=sizes["base_size"], device=CPU)
    if "rows" in given:
        close(case, table[given["rows"], given["cols"]], expected["values"])
    else:
        close(case, table, expected["table"].view(table.shape))


@pytest.mark.parametrize("case", of_topic(TOPIC, "pos_embed_1d"))
def test_frame_table(case):
    sizes, (_, expected) = case["params"], tensors_of(TOPIC, case)
    table = frame_table(sizes["dim"], sizes["length"], scale=sizes["scale"], device=CPU)
    close(case, table, expected["table"].view(table.shape))


@pytest.mark.parametrize("case", of_topic(TOPIC, "null_embedding"))
def test_null(case):
    check_null(TOPIC, case, builder(case))


@pytest.mark.parametrize("case", of_topic(TOPIC, "convert"))
def test_convert(case, tmp_path):
    check_convert(TOPIC, case, convert, tmp_path)
