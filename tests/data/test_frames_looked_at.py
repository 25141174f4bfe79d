"""Rules of frame sampling that the goldens do not have: by time, every so many, and clips without frames."""

from __future__ import annotations

import pytest

from sora_cli.data import sampling


def test_by_time():
    assert sampling.every_seconds(100, 30000 / 1001, 0.4, count=4) == [0, 12, 24, 36]
    assert sampling.every_seconds(20, 24, 0.4, count=4) == [0, 10, 19, 19]
    assert sampling.every_seconds(25, 24, 0.5) == [0, 12, 24]
    assert sampling.every_seconds(24, 24, 0.5) == [0, 12]
    # Without a rate, or with one below that of the samples, one frame after the other.
    assert sampling.every_seconds(3, 0, 0.5) == [0, 1, 2]
    assert sampling.every_seconds(3, 1, 0.5) == [0, 1, 2]


def test_every():
    assert sampling.every(31, 15) == [0, 15, 30]
    assert sampling.every(1, 15) == [0]


@pytest.mark.parametrize("rule", [
    lambda: sampling.at_points(0, (0.5,)),
    lambda: sampling.evenly_spaced(0, 4),
    lambda: sampling.middle_of_parts(0, 4),
    lambda: sampling.every(0, 15),
    lambda: sampling.every_seconds(0, 24, 0.4),
])  # fmt: skip
def test_a_clip_without_frames(rule):
    with pytest.raises(ValueError, match="0 frames"):
        rule()
