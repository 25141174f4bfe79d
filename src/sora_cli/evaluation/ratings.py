"""Strengths of models from comparisons in pairs, with intervals, and how far raters agree. numpy only."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
#: Of the Elo scale (Elo 1978, "The Rating of Chessplayers"): 400 points are odds of ten to one, 1000 is the mean.
ELO_MEAN, ELO_POINTS = 1000.0, 400 / math.log(10)
#: Wins given to both sides of each compared pair where the wins alone have no finite strengths.
PRIOR = 0.5
TOLERANCE, MOST_ROUNDS = 1e-9, 20000


@dataclass(frozen=True)
class Fit:
    """Strengths of M models. groups (M,): number of the set of models that comparisons connect.

    strengths (M,): natural logarithms, with mean 0 in each group; nan without comparisons. low, high: of their
    intervals, nan without one. is_regular: whether the wins alone determine them.
    """

    strengths: Array
    low: Array
    high: Array
    groups: NDArray[np.int64]
    is_regular: bool


def to_elo(strengths: Array) -> Array:
    """Elo ratings of log strengths of any shape."""
    return ELO_MEAN + ELO_POINTS * strengths


def fit(wins: Array, *, samples: int, seed: int, level: float = 0.95) -> Fit:
    """Fit strengths to wins of (K, M, M): [k, i, j] counts how often i beat j on clip k, a tie is half a win for each.

    The intervals come from a bootstrap over clips with all their votes, for votes on one clip depend on each other
    (Efron 1979; percentiles): `samples` times K clips are drawn and fitted.
    """
    total = wins.sum(axis=0)
    compared = (total + total.T) > 0
    connected = _reachable(compared)
    strengths, is_regular = _centred(total[None], compared, connected)
    low = high = np.full(len(total), np.nan)
    if len(wins) > 1 and samples:
        generator = np.random.default_rng(seed)
        weights = generator.multinomial(len(wins), np.full(len(wins), 1 / len(wins)), size=samples)
        drawn, _ = _centred(np.einsum("rk,kij->rij", weights, wins), compared, connected)
        low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    alone = ~compared.any(axis=0)
    strengths, low, high = (np.where(alone, np.nan, values) for values in (strengths[0], low, high))
    groups = np.unique(connected.argmax(axis=1), return_inverse=True)[1]
    return Fit(strengths, low, high, groups, bool(is_regular[0]))


def _centred(wins: Array, compared: NDArray[np.bool_], connected: NDArray[np.bool_]) -> tuple[Array, NDArray[np.bool_]]:
    """Log strengths (R, M) of wins (R, M, M), each group with mean 0, and whether the wins alone determine them (R,).

    They do if within each group every model is reached from every other by a chain of wins (Ford 1957). Else half a
    win is added to both sides of each compared pair.
    """
    is_regular: NDArray[np.bool_] = np.all(_reachable(wins > 0) | ~connected, axis=(1, 2))
    strengths = bradley_terry(wins + np.where(is_regular[:, None, None], 0, PRIOR * compared))
    return strengths - strengths @ (connected / connected.sum(axis=1)).T, is_regular


def _reachable(edges: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(..., M, M): whether a chain of edges leads from i to j; every model reaches itself."""
    count = edges.shape[-1]
    reached = edges | np.eye(count, dtype=bool)
    for _ in range(max(1, math.ceil(math.log2(count)))):
        reached = (reached.astype(np.int64) @ reached.astype(np.int64)) > 0
    return reached


def bradley_terry(wins: Array) -> Array:
    """Log strengths (..., M) that make wins (..., M, M) most likely where i beats j with p_i / (p_i + p_j).

    By the MM algorithm of Hunter 2004, "MM algorithms for generalized Bradley-Terry models", eq. 3. The constant that
    each connected set of models is free to have is arbitrary. Wins must determine the strengths, see `_centred`; a
    model without comparisons gets 0.
    """
    games = wins + np.swapaxes(wins, -1, -2)
    scores = wins.sum(axis=-1)
    is_alone = games.sum(axis=-1) == 0
    logs = np.zeros(scores.shape)
    for _ in range(MOST_ROUNDS):
        powers = np.exp(logs)
        shares = (games / (powers[..., :, None] + powers[..., None, :])).sum(axis=-1)
        new = np.where(is_alone, 0, np.log(np.where(is_alone, 1, scores) / np.where(is_alone, 1, shares)))
        new -= new.mean(axis=-1, keepdims=True)
        change = np.abs(new - logs).max(initial=0)
        logs = new
        if change < TOLERANCE:
            break
    return logs


# -- agreement -----------------------------------------------------------------------------------------------------


def krippendorff_alpha(units: Iterable[Sequence[str]]) -> float | None:
    """Agreement beyond chance, 1 at most, of nominal judgements; a unit is what several raters said of one thing.

    Krippendorff 2004, "Content Analysis", chapter 11. None where nothing was judged twice, or all judgements are equal.
    """
    pairable = [Counter(unit) for unit in units if len(unit) > 1]
    totals = sum(pairable, Counter[str]())
    count = totals.total()
    agreed = sum(sum(number * (number - 1) for number in unit.values()) / (unit.total() - 1) for unit in pairable)
    expected = sum(number * (number - 1) for number in totals.values())
    if not count or expected == count * (count - 1):
        return None
    return 1 - (1 - agreed / count) / (1 - expected / (count * (count - 1)))


def agreement_with_others(units: Iterable[Mapping[str, str]], rater: str) -> float | None:
    """Share of the other raters' judgements on the same things that are those of `rater`; units: judgement by rater."""
    same = [
        judgement == unit[rater]
        for unit in units
        if rater in unit
        for other, judgement in unit.items()
        if other != rater
    ]
    return sum(same) / len(same) if same else None
