"""Golden topic `frame_sampling`: which frames each tool looks at."""

from __future__ import annotations

import pytest
from loader import cases

from sora_cli.data import sampling

RULES = {
    **{
        f"aesthetic_{count}": lambda n, points=points: sampling.at_points(n, points)
        for count, points in sampling.AESTHETIC_POINTS.items()
    },
    "caption_2": lambda n: sampling.at_points(n, sampling.CAPTION_POINTS[2]),
    "match": lambda n: sampling.at_points(n, sampling.MATCH_POINTS),
    "ocr": lambda n: sampling.at_indices(n, sampling.OCR_INDICES),
    "flow": lambda n: sampling.at_indices(n, sampling.FLOW_INDICES),
    "evenly_spaced_4": lambda n: sampling.evenly_spaced(n, 4),
    "evenly_spaced_16": lambda n: sampling.evenly_spaced(n, 16),
    "middle_of_4_parts": lambda n: sampling.middle_of_parts(n, 4),
    "middle_of_8_parts": lambda n: sampling.middle_of_parts(n, 8),
}


@pytest.mark.parametrize("case", cases("frame_sampling", "cases"))
def test_indices(case):
    expected = {name: indices for name, indices in case.items() if name not in ("num_frames", "name")}
    assert expected
    assert {name: RULES[name](case["num_frames"]) for name in expected} == expected
