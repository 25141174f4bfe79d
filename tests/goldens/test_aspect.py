"""Golden topic `aspect`: the same tables and look-ups as training sees them."""

from __future__ import annotations

import pytest
from loader import cases, read

from sora_cli.errors import UsageError
from sora_cli.video import shapes


def test_tables():
    wanted = read("aspect", "tables")["tables"]
    assert list(shapes.resolutions()) == list(wanted)
    for name, table in wanted.items():
        ours = shapes.resolutions()[name]
        assert ours.pixels == table["pixels"]
        assert list(ours.sizes) == table["order"]
        assert {key: list(size) for key, size in ours.sizes.items()} == table["sizes"]


@pytest.mark.parametrize("case", cases("aspect", "lookups", "image_size"))
def test_image_size(case):
    if case["expected"] == "error":
        with pytest.raises(UsageError):
            shapes.table_size(case["resolution"], case["aspect"])
    else:
        assert list(shapes.table_size(case["resolution"], case["aspect"])) == case["expected"]


@pytest.mark.parametrize("case", cases("aspect", "lookups", "closest_ratio"))
def test_closest_ratio(case):
    assert shapes.closest_aspect(case["resolution"], case["height"], case["width"]) == case["key"]


@pytest.mark.parametrize("case", cases("aspect", "lookups", "num_frames"))
def test_num_frames(case):
    assert shapes.table_frames(case["value"]) == case["expected"]
