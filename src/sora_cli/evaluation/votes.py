"""Votes of a rating page: read, checked against the key of the page, and summed up."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sora_cli.errors import UsageError, unknown_name

from .ratings import Array, agreement_with_others, fit, krippendorff_alpha, to_elo

KEY_FILE = "key.json"
#: What a rater can say of a pair; A is the clip on the left.
CHOICES = ("A", "B", "tie", "bad")
FIELDS = ("page", "rater", "pair", "criterion", "choice", "time")


class Vote(NamedTuple):
    """One judgement. choice: of `CHOICES`; time: ISO 8601, as text in order of time."""

    rater: str
    pair: str
    criterion: str
    choice: str
    time: str


@dataclass(frozen=True)
class Key:
    """What a page does not say. pairs: token -> name of the clip and the models left and right.

    models: label -> folder and provenance of the clips. criteria: name -> what is asked.
    """

    page: str
    models: Mapping[str, Mapping[str, Any]]
    criteria: Mapping[str, str]
    pairs: Mapping[str, Mapping[str, str]]


def read_key(folder: Path) -> Key:
    """The key in the folder of a page. Raises UsageError."""
    path = folder / KEY_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Key(**{name: content[name] for name in ("page", "models", "criteria", "pairs")})
    except (OSError, ValueError, KeyError, TypeError) as error:
        hint = "give the folder that `sora eval human page` wrote, with key.json in it"
        raise UsageError(f"{path} is no key of a rating page: {error}", hint=hint) from error


def read_votes(path: Path, key: Key) -> list[Vote]:
    """The votes in a file that the page saved, .json or .csv. Raises UsageError for votes that are not of this page."""
    try:
        rows = _rows(path.read_text(encoding="utf-8-sig"), is_csv=path.suffix.lower() == ".csv")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} holds no votes: {error}", hint="give the files that raters saved") from error
    votes = []
    for number, row in enumerate(rows, 1):
        where = f"{path}, vote {number}"
        if row["page"] != key.page:
            raise UsageError(f"{where}: it is of another page, {row['page']!r} and not {key.page!r}")
        if not row["rater"].strip():
            raise UsageError(f"{where}: it has no rater", hint="write the name of who voted into the file")
        pair = key.pairs.get(row["pair"])
        if pair is None:
            raise UsageError(f"{where}: the page has no pair {row['pair']!r}")
        for what, value, known in (("criterion", row["criterion"], key.criteria), ("choice", row["choice"], CHOICES)):
            if value not in known:
                raise unknown_name(f"{what} ({where})", value, known)
        votes.append(Vote(row["rater"].strip(), row["pair"], row["criterion"], row["choice"], row["time"]))
    return votes


def _rows(text: str, *, is_csv: bool) -> list[dict[str, str]]:
    """Votes with all of `FIELDS`, of which a JSON file says page and rater once."""
    if is_csv:
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    else:
        content = json.loads(text)
        rows = [{"page": content["page"], "rater": content["rater"], **vote} for vote in content["votes"]]
    for row in rows:
        if not all(isinstance(row[field], str) for field in FIELDS):
            raise ValueError(f"a vote needs text in {', '.join(FIELDS)}, and this is {row}")
    return rows


def last_votes(votes: Sequence[Vote]) -> tuple[list[Vote], int]:
    """One vote for each rater, pair and criterion, the last, and how many others said something else.

    A rater who saves twice has the first votes in both files.
    """
    last: dict[tuple[str, str, str], Vote] = {}
    changed = 0
    for vote in sorted(votes, key=lambda vote: vote.time):
        before = last.get(vote[:3])
        changed += before is not None and before.choice != vote.choice
        last[vote[:3]] = vote
    return list(last.values()), changed


# -- summary -------------------------------------------------------------------------------------------------------


def summary(votes: Sequence[Vote], key: Key, *, samples: int, seed: int) -> dict[str, Any]:
    """What votes of `last_votes` say by criterion, and about the raters. samples, seed: of the bootstrap."""
    criteria = {name: [vote for vote in votes if vote.criterion == name] for name in key.criteria}
    return {
        "page": key.page,
        "votes": len(votes),
        "criteria": {name: _criterion(own, key, samples, seed) for name, own in criteria.items() if own},
        "raters": _raters(votes),
        "bootstrap": {"samples": samples, "seed": seed, "level": 0.95, "over": "clips"},
        "models": dict(key.models),
    }


def _criterion(votes: Sequence[Vote], key: Key, samples: int, seed: int) -> dict[str, Any]:
    models = list(key.models)
    wins, counts = _wins(votes, key)
    found = fit(wins, samples=samples, seed=seed)
    total = wins.sum(axis=0)
    rows: list[dict[str, Any]] = []
    for index, model in enumerate(models):
        games = total[index].sum() + total[:, index].sum()
        elo, low, high = (
            _number(value) for value in to_elo(np.stack([found.strengths, found.low, found.high]))[:, index]
        )
        rows.append(
            {
                "model": model,
                "elo": elo,
                "low": low,
                "high": high,
                "strength": _number(found.strengths[index], 4),
                "score": _number(total[index].sum() / games, 4) if games else None,
                "votes": int(games),
                "group": int(found.groups[index]) + 1,
            }
        )
    rows.sort(key=lambda row: (row["group"], -(row["elo"] or 0)))
    pairs = [
        {"a": a, "b": b, **{name: counts[a, b][name] for name in ("a_better", "b_better", "tie", "bad")}}
        for a, b in combinations(models, 2)
        if counts[a, b]
    ]
    notes = []
    if not found.is_regular:
        notes.append("some model won or lost against all others, so half a win was added to both sides of each pair")
    if len({row["group"] for row in rows}) > 1:
        notes.append("models of different groups were never compared, not even through others: their ratings are apart")
    if len(wins) < 2:
        notes.append("votes on a single clip give no interval")
    alpha = krippendorff_alpha([list(unit.values()) for unit in _units(votes).values()])
    agreement = None if alpha is None else round(alpha, 4)
    return {"models": rows, "pairs": pairs, "clips": len(wins), "agreement": agreement, "notes": notes}


def _wins(votes: Sequence[Vote], key: Key) -> tuple[Array, dict[tuple[str, str], Counter[str]]]:
    """Wins (K, M, M) by clip, for both "tie" and "bad" half a win each, and what was said of each pair of models."""
    models = list(key.models)
    names = dict.fromkeys(key.pairs[vote.pair]["name"] for vote in votes)
    clips = {name: number for number, name in enumerate(names)}
    wins = np.zeros((len(clips), len(models), len(models)))
    counts: dict[tuple[str, str], Counter[str]] = {pair: Counter() for pair in combinations(models, 2)}
    for vote in votes:
        pair = key.pairs[vote.pair]
        clip, left, right = clips[pair["name"]], models.index(pair["left"]), models.index(pair["right"])
        first, second = sorted((left, right))
        share = {"A": 1.0, "B": 0.0}.get(vote.choice, 0.5)
        wins[clip, left, right] += share
        wins[clip, right, left] += 1 - share
        said = vote.choice if share == 0.5 else "a_better" if (share == 1) == (left == first) else "b_better"
        counts[models[first], models[second]][said] += 1
    return wins, counts


def _units(votes: Sequence[Vote]) -> dict[tuple[str, str], dict[str, str]]:
    """What each rater said, by pair and criterion."""
    units: dict[tuple[str, str], dict[str, str]] = {}
    for vote in votes:
        units.setdefault((vote.pair, vote.criterion), {})[vote.rater] = vote.choice
    return units


def _raters(votes: Sequence[Vote]) -> list[dict[str, Any]]:
    """left: share of the left clip among those chosen; far from a half it is the place that was chosen."""
    units = _units(votes)
    rows = []
    for rater in sorted({vote.rater for vote in votes}):
        chosen = Counter(vote.choice for vote in votes if vote.rater == rater)
        decided = chosen["A"] + chosen["B"]
        agreement = agreement_with_others(units.values(), rater)
        rows.append(
            {
                "rater": rater,
                "votes": chosen.total(),
                "agreement": None if agreement is None else round(agreement, 4),
                "left": round(chosen["A"] / decided, 4) if decided else None,
            }
        )
    return rows


def _number(value: float, digits: int = 1) -> float | None:
    """Rounded for people and JSON, which has no nan."""
    return None if math.isnan(value) else round(float(value), digits)
