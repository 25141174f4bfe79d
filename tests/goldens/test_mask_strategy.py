"""Golden topic `mask_strategy`: the grammar, where groups land, and what later loops add."""

from __future__ import annotations

import pytest
from loader import cases, read

from sora_cli.conditioning.mask_strategy import (
    continuing,
    frame_mask,
    nearest_border,
    overlap_frames,
    parse_strategy,
    place,
)
from sora_cli.errors import UsageError

TOPIC = "mask_strategy"


@pytest.mark.parametrize("case", cases(TOPIC, "parse"))
def test_parse(case):
    if "error" in case:
        with pytest.raises(UsageError):
            parse_strategy(case["input"])
        return
    found = parse_strategy(case["input"])
    rows = [[g.loop, g.reference, g.reference_start, g.target_start, g.length, g.edit_ratio] for g in found]
    assert rows == case["out"]


def test_nearest_point():
    described = read(TOPIC, "nearest_point")
    assert described["columns"] == ["value", "point", "max_value", "out"]
    assert described["rows"]
    for value, point, most, out in described["rows"]:
        assert nearest_border(value, point, most) == out, (value, point, most)


def placements_of(case):
    """For each sample."""
    return [
        place(
            parse_strategy(text),
            loop=case["loop"],
            latent_frames=case["latent_frames"],
            reference_frames=frames,
            align=case["align"],
        )
        for text, frames in zip(case["strategies"], case["ref_frames"], strict=True)
    ]


@pytest.mark.parametrize("case", cases(TOPIC, "apply"))
def test_apply(case):
    """Latents are numbers of their own; those of reference r are 100 (r + 1) and on."""
    if "error" in case:
        with pytest.raises(UsageError):
            placements_of(case)
        return
    for row, found in enumerate(placements_of(case)):
        latent = list(range(case["latent_frames"]))
        for each in found:
            start = 100 * (each.reference + 1) + each.source
            latent[each.target : each.target + each.length] = range(start, start + each.length)
        assert latent == case["latent"][row]
        assert frame_mask(found, case["latent_frames"]) == pytest.approx(case["mask"][row], abs=1e-6)


@pytest.mark.parametrize("case", cases(TOPIC, "append_generated"))
def test_later_loops(case):
    for text, count, after in zip(case["strategies"], case["num_refs"], case["strategies_after"], strict=True):
        found = continuing(
            text,
            loop=case["loop"],
            reference=count,
            overlap=case["condition_frame_length"],
            edit_ratio=case["condition_frame_edit"],
        )
        assert found == after


@pytest.mark.parametrize("case", cases(TOPIC, "latent_to_frames"))
def test_overlap(case):
    if "error" in case:
        with pytest.raises(UsageError):
            overlap_frames(case["n"])
    else:
        assert overlap_frames(case["n"]) == case["out"]
