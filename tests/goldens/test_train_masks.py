"""Golden topic `train_masks`: which frames are given in training."""

from __future__ import annotations

import numpy as np
import pytest
from loader import cases, read

from sora_cli.conditioning.frame_masks import MaskRatios, frame_mask

DRAWS = ("size", "position", "start", "ratio", "uniforms")


@pytest.mark.parametrize("case", cases("train_masks", "masks"))
def test_masks(case):
    draws = {name: case[name] for name in DRAWS if name in case}
    assert frame_mask(case["type"], case["num_frames"], **draws).astype(int).tolist() == case["mask"]


@pytest.mark.parametrize("case", cases("train_masks", "masks", "type_selection"))
def test_type_selection(case):
    ratios = MaskRatios(dict(case["order"]))
    assert [[uniform, ratios.kind(uniform)] for uniform, _ in case["choices"]] == case["choices"]


@pytest.mark.parametrize("case", cases("train_masks", "masks", "expectations"))
def test_expected_share_of_given_frames(case):
    orders = {row["preset"]: dict(row["order"]) for row in read("train_masks", "masks")["type_selection"]}
    ratios = MaskRatios(orders[case["preset"]])
    random, count = np.random.default_rng(0), 20_000
    given = [1 - ratios.draw(case["num_frames"], random).mean() for _ in range(count)]
    assert abs(np.mean(given) - case["expected_condition_fraction"]) <= 5 * case["std_of_fraction"] / count**0.5
