"""From the raw numbers of VBench to its scores: ranges, weights and groups of the dimensions.

Two ways of adding up are in use. "reference" is that of Open-Sora: raw numbers are rounded to four decimals first.
"leaderboard" is that of VBench 0.1.5: nothing is rounded; for i2v it also counts other dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from .vbench_suite import SuiteName

REFERENCE, LEADERBOARD = "reference", "leaderboard"
WAYS = (REFERENCE, LEADERBOARD)


class Range(NamedTuple):
    """low and high: raw values that become 0 and 1; weight: in its group; prompts: of the suite."""

    low: float
    high: float
    weight: float
    prompts: int


#: In the order in which the reference prints them.
RANGES: Mapping[str, Mapping[str, Range]] = {
    "t2v": {
        "subject_consistency": Range(0.1462, 1.0, 1.0, 72),
        "background_consistency": Range(0.2615, 1.0, 1.0, 86),
        "temporal_flickering": Range(0.6293, 1.0, 1.0, 75),
        "motion_smoothness": Range(0.7060, 0.9975, 1.0, 72),
        "dynamic_degree": Range(0.0, 1.0, 0.5, 72),
        "aesthetic_quality": Range(0.0, 1.0, 1.0, 93),
        "imaging_quality": Range(0.0, 1.0, 1.0, 93),
        "object_class": Range(0.0, 1.0, 1.0, 79),
        "multiple_objects": Range(0.0, 1.0, 1.0, 82),
        "human_action": Range(0.0, 1.0, 1.0, 100),
        "color": Range(0.0, 1.0, 1.0, 85),
        "spatial_relationship": Range(0.0, 1.0, 1.0, 84),
        "scene": Range(0.0, 0.8222, 1.0, 86),
        "appearance_style": Range(0.0009, 0.2855, 1.0, 90),
        "temporal_style": Range(0.0, 0.3640, 1.0, 100),
        "overall_consistency": Range(0.0, 0.3640, 1.0, 93),
    },
    "i2v": {
        "camera_motion": Range(0.0, 1.0, 0.1, 763),
        "i2v_subject": Range(0.1462, 1.0, 1.0, 246),
        "i2v_background": Range(0.2615, 1.0, 1.0, 109),
        "subject_consistency": Range(0.1462, 1.0, 1.0, 246),
        "background_consistency": Range(0.2615, 1.0, 1.0, 109),
        "motion_smoothness": Range(0.7060, 0.9975, 1.0, 246),
        "dynamic_degree": Range(0.0, 1.0, 0.5, 246),
        "aesthetic_quality": Range(0.0, 1.0, 1.0, 355),
        "imaging_quality": Range(0.0, 1.0, 1.0, 355),
        "temporal_flickering": Range(0.6293, 1.0, 1.0, 355),
    },
}
_T2V, _I2V = tuple(RANGES["t2v"]), tuple(RANGES["i2v"])
_T2V_GROUPS = {"quality": _T2V[:7], "semantic": _T2V[7:]}
#: Suite -> way -> group -> its dimensions, groups in the order in which they are printed.
GROUPS: Mapping[str, Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "t2v": {REFERENCE: _T2V_GROUPS, LEADERBOARD: _T2V_GROUPS},
    "i2v": {
        REFERENCE: {"i2v": _I2V[1:3], "quality": _I2V[3:]},
        LEADERBOARD: {"i2v": _I2V[:3], "quality": _I2V[3:-1]},
    },
}
#: What the groups weigh in the total.
GROUP_WEIGHTS: Mapping[str, Mapping[str, float]] = {
    "t2v": {"quality": 4.0, "semantic": 1.0},
    "i2v": {"i2v": 1.0, "quality": 1.0},
}


def normalised(suite: SuiteName, dimension: str, raw: float) -> float:
    """A raw value on the scale of its range: 0 at its low end, 1 at its high end, and beyond both."""
    low, high, *_ = RANGES[suite][dimension]
    return (raw - low) / (high - low)


def weighted(suite: SuiteName, dimension: str, raw: float) -> float:
    """`normalised` times the weight of the dimension, which is what the reference prints."""
    return normalised(suite, dimension, raw) * RANGES[suite][dimension].weight


def rounded(raw: float) -> str:
    """A raw value as the reference keeps it, with four decimals."""
    return f"{raw:.4f}"


def aggregates(suite: SuiteName, raw: Mapping[str, float], way: str) -> dict[str, float | None]:
    """ "total" and the groups, in shares of 1; None for those that miss a dimension.

    raw: dimension -> value; way: one of `WAYS`.
    """
    values = {each: float(rounded(value)) if way == REFERENCE else value for each, value in raw.items()}
    groups = {
        group: _mean(suite, dimensions, values) if all(each in values for each in dimensions) else None
        for group, dimensions in GROUPS[suite][way].items()
    }
    weights = GROUP_WEIGHTS[suite]
    known = {group: value for group, value in groups.items() if value is not None}
    total = sum(weights[group] * value for group, value in known.items()) / sum(weights.values())
    return {"total": total if len(known) == len(groups) else None, **groups}


def _mean(suite: SuiteName, dimensions: tuple[str, ...], values: Mapping[str, float]) -> float:
    total = sum(weighted(suite, each, values[each]) for each in dimensions)
    return total / sum(RANGES[suite][each].weight for each in dimensions)


def reference_tables(
    suite: SuiteName, raw: Mapping[str, float]
) -> tuple[dict[str, str], dict[str, list[dict[str, str]]]]:
    """What the reference writes as all_results.json and scaled_results.json, of all dimensions.

    raw: dimension -> value; KeyError when one is missing.
    """
    texts = {dimension: rounded(raw[dimension]) for dimension in sorted(RANGES[suite])}
    values = {dimension: float(text) for dimension, text in texts.items()}
    rows = [{f"{name} score": _percent(value)} for name, value in aggregates(suite, values, REFERENCE).items()]
    for dimension in RANGES[suite]:
        name = dimension.replace("_", " ") if suite == "t2v" else dimension
        rows.append({name: _percent(weighted(suite, dimension, values[dimension]))})
    return texts, {"items" if suite == "t2v" else "item": rows}


def _percent(share: float | None) -> str:
    assert share is not None  # all dimensions are there
    return f"{100 * share:.2f}%"
