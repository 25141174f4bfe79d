"""Golden topic `resolutions`: size tables, lengths, look-ups, file sizes."""

from __future__ import annotations

import pytest
from loader import cases, read

from sora_cli.errors import UsageError
from sora_cli.video import shapes


def test_tables():
    wanted = read("resolutions", "aspect_tables")
    assert list(shapes.resolutions()) == list(wanted["resolutions"])
    for name, table in wanted["resolutions"].items():
        ours = shapes.resolutions()[name]
        assert ours.pixels == table["num_pixels"]
        assert [(key, list(size)) for key, size in ours.sizes.items()] == list(table["sizes"].items())
    # 25:12 is the true ratio of the sizes that the reference calls 50:27; it is an additional name of ours.
    assert list(shapes.aspect_names().items()) == [*wanted["aspect_names"].items(), ("25:12", "2.08")]


def test_duration_names():
    assert dict(shapes.durations()) == read("resolutions", "durations")["names"]


@pytest.mark.parametrize("case", cases("resolutions", "durations"))
def test_durations(case):
    if "error" in case:
        with pytest.raises(ValueError, match="invalid literal"):
            shapes.table_frames(case["input"])
    else:
        assert shapes.table_frames(case["input"]) == case["out"]


@pytest.mark.parametrize("case", cases("resolutions", "image_size"))
def test_image_size(case):
    if "error" in case:
        with pytest.raises(UsageError):
            shapes.table_size(case["resolution"], case["aspect"])
    else:
        assert list(shapes.table_size(case["resolution"], case["aspect"])) == case["size"]


@pytest.mark.parametrize("case", cases("resolutions", "closest_ratio"))
def test_closest_ratio(case):
    assert shapes.closest_aspect(case["resolution"], case["height"], case["width"]) == case["key"]


@pytest.mark.parametrize("case", cases("resolutions", "latent_sizes"))
def test_latent_sizes(case):
    """Height and width; how many latent frames there are is a matter of each autoencoder, tested with it."""
    size = shapes.file_size(shapes.Size(case["height"], case["width"]))
    assert list(size) == case["decoded"]
    grid = [size.height // 8, size.width // 8]
    assert case["vae_2d"] == [case["num_frames"], *grid]
    assert case["vae_1_2"][1:] == grid
