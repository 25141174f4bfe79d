"""Scenes of several detectors put together."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest

from sora_cli.data.scene_agreement import both, either


def scenes(*cuts: float) -> list[tuple[Fraction, Fraction]]:
    times = [Fraction(cut).limit_denominator(1000) for cut in cuts]
    return list(itertools.pairwise(times))


@pytest.mark.parametrize(
    ("first", "second", "any_cuts", "all_cut"),
    [
        ((0, 4, 10), (0, 4, 10), [(0, 4), (4, 10)], [(0, 4), (4, 10)]),
        ((0, 4, 10), (0, 10), [(0, 4), (4, 10)], [(0, 10)]),
        ((0, 10), (0, 4, 10), [(0, 4), (4, 10)], [(0, 10)]),
        ((0, 4, 7, 10), (0, 7, 10), [(0, 4), (4, 7), (7, 10)], [(0, 7), (7, 10)]),
        ((0, 4, 10), (0, 4.2, 10), [(0, 4), (4.2, 10)], [(0, 4), (4, 10)]),
        ((0, 4, 10), (0, 4.5, 10), [(0, 4), (4, 4.5), (4.5, 10)], [(0, 10)]),
        ((0, 0.2), (0, 0.1, 0.2), [(0, 0.1), (0.1, 0.2)], [(0, 0.2)]),
    ],
)
def test_where_scenes_are_cut(first, second, any_cuts, all_cut) -> None:
    found = [scenes(*first), scenes(*second)]
    assert [tuple(map(float, scene)) for scene in either(found)] == any_cuts
    assert [tuple(map(float, scene)) for scene in both(found)] == all_cut


def test_a_transition_that_one_detector_leaves_out() -> None:
    """A dissolve from 3 to 5 seconds is in no scene; a cut in its middle agrees with it."""
    dissolve = [(Fraction(0), Fraction(3)), (Fraction(5), Fraction(9))]
    assert either([scenes(0, 4, 9), dissolve]) == dissolve
    assert both([scenes(0, 4, 9), dissolve]) == scenes(0, 4, 9)
    assert both([dissolve, scenes(0, 9)]) == scenes(0, 9)


def test_three_detectors() -> None:
    found = [scenes(0, 2, 5, 9), scenes(0, 5, 9), scenes(0, 2, 9)]
    assert either(found) == scenes(0, 2, 5, 9)
    assert both(found) == scenes(0, 9)
