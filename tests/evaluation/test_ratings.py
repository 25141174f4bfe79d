"""Strengths against known answers, what has none, and agreement of raters."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sora_cli.evaluation.ratings import ELO_MEAN, agreement_with_others, bradley_terry, fit, krippendorff_alpha, to_elo


def single(wins):
    return fit(np.array([wins], dtype=float), samples=0, seed=0)


def test_two_models_differ_by_the_log_odds() -> None:
    found = single([[0, 7], [3, 0]])
    assert found.strengths[0] - found.strengths[1] == pytest.approx(math.log(7 / 3))
    assert found.strengths.sum() == pytest.approx(0)
    assert found.is_regular
    assert np.isnan(found.low).all()


def test_odds_of_ten_to_one_are_400_points() -> None:
    better, worse = to_elo(single([[0, 10], [1, 0]]).strengths)
    assert better - worse == pytest.approx(400)
    assert better + worse == pytest.approx(2 * ELO_MEAN)


def test_strengths_that_made_the_wins_are_found_again() -> None:
    true = np.array([0.9, 0.2, -0.4, -0.7])
    powers = np.exp(true)
    games = np.array([[0, 5, 0, 9], [5, 0, 7, 0], [0, 7, 0, 3], [9, 0, 3, 0]])
    wins = games * powers[:, None] / (powers[:, None] + powers)
    np.testing.assert_allclose(bradley_terry(wins), true, atol=1e-6)


def test_the_likelihood_is_highest_there() -> None:
    wins = np.array([[0, 6, 2], [4, 0, 5], [3, 1, 0]], dtype=float)

    def likelihood(logs):
        return (wins * (logs[:, None] - np.logaddexp(logs[:, None], logs))).sum()

    best = bradley_terry(wins)
    for shift in np.random.default_rng(0).normal(scale=0.05, size=(50, 3)):
        assert likelihood(best + shift) <= likelihood(best) + 1e-9


def test_a_model_without_wins_gets_half_a_win_more() -> None:
    found = single([[0, 4], [0, 0]])
    assert not found.is_regular
    assert found.strengths[0] - found.strengths[1] == pytest.approx(math.log(4.5 / 0.5))


def test_models_that_were_never_compared_are_groups_with_a_mean_each() -> None:
    found = single([[0, 3, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 2, 0], [0, 0, 2, 0, 0], [0, 0, 0, 0, 0]])
    assert found.groups.tolist() == [0, 0, 1, 1, 2]
    assert found.is_regular
    np.testing.assert_allclose(found.strengths[:4], [math.log(3) / 2, -math.log(3) / 2, 0, 0], atol=1e-8)
    assert math.isnan(found.strengths[4])


def test_intervals_hold_the_estimate_shrink_with_clips_and_are_those_of_the_seed() -> None:
    clips = np.array([[[0, 1], [0, 0]]] * 14 + [[[0, 0], [1, 0]]] * 6, dtype=float)
    few, again = (fit(clips, samples=500, seed=3) for _ in range(2))
    many = fit(np.tile(clips, (16, 1, 1)), samples=500, seed=3)
    np.testing.assert_array_equal(few.low, again.low)
    assert few.low[0] < few.strengths[0] < few.high[0]
    # Half the difference of two strengths; the deviation of log odds is sqrt(1 / (n p (1 - p))).
    wanted = 1.96 * math.sqrt(1 / (320 * 0.7 * 0.3))
    assert many.high[0] - many.low[0] == pytest.approx(wanted, rel=0.2)
    assert few.high[0] - few.low[0] > 3 * (many.high[0] - many.low[0])


def test_votes_on_one_clip_are_drawn_together() -> None:
    clips = np.array([[[0, 5], [0, 0]], [[0, 0], [5, 0]]], dtype=float)
    apart = np.array([[[0, 1], [0, 0]]] * 5 + [[[0, 0], [1, 0]]] * 5, dtype=float)
    together, single_votes = (fit(wins, samples=400, seed=1) for wins in (clips, apart))
    assert together.high[0] > single_votes.high[0] + 0.3


def test_agreement_beyond_chance() -> None:
    """Four raters and twelve units of nominal data in Krippendorff 2011, "Computing Krippendorff's alpha", C."""
    table = [
        "1 2 3 3 2 1 4 1 2 . . .",
        "1 2 3 3 2 2 4 1 2 5 . 3",
        ". 3 3 3 2 3 4 2 2 5 1 .",
        "1 2 3 3 2 4 4 1 2 5 1 .",
    ]
    columns = zip(*(row.split() for row in table), strict=True)
    units = [[value for value in column if value != "."] for column in columns]
    assert krippendorff_alpha(units) == pytest.approx(0.743, abs=5e-4)


def test_agreement_has_no_number_without_two_judgements_or_two_values() -> None:
    assert krippendorff_alpha([["A"], ["B"]]) is None
    assert krippendorff_alpha([["A", "A"], ["A", "A"]]) is None
    assert krippendorff_alpha([["A", "A"], ["B", "B"]]) == 1


def test_agreement_of_a_rater_with_the_others() -> None:
    units = [{"ann": "A", "bob": "A", "cid": "B"}, {"ann": "tie", "bob": "A"}, {"bob": "A", "cid": "B"}]
    assert agreement_with_others(units, "ann") == pytest.approx(1 / 3)
    assert agreement_with_others([{"ann": "A"}], "ann") is None
