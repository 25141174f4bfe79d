"""Golden topic `buckets`: which clip goes into which bucket, and the batches made of them."""

from __future__ import annotations

import numpy as np
import pytest
from loader import cases, read

from sora_cli.training.buckets import BucketTable
from sora_cli.training.plan import EpochPlan, FixedPlan, feature_batches
from sora_cli.video.shapes import resolutions


def table_of(entries):
    """The bucket table of a list of entries as the goldens write them."""
    config = {}
    for entry in entries:
        chance = entry["keep_prob"] if entry["length_prob"] is None else [entry["keep_prob"], entry["length_prob"]]
        config.setdefault(entry["resolution"], {})[entry["num_frames"]] = [chance, entry["batch_size"]]
    return BucketTable(config)


def assign(table, samples, **options):
    frames, height, width = np.array(samples).T
    return table.assign(frames, height, width, **{"seed": 42, "epoch": 0, **options})


def bucket_list(table, assigned):
    found = zip(assigned.pair, assigned.aspect, strict=True)
    return [None if pair < 0 else list(table.bucket(pair, aspect)) for pair, aspect in found]


@pytest.mark.parametrize("case", cases("buckets", "tables", "tables"))
def test_tables(case):
    table = table_of(case["config"])
    known = resolutions()
    order = [
        {
            "id": number,
            "resolution": pair.resolution,
            "num_frames": pair.num_frames,
            "pixels": known[pair.resolution].pixels,
            "min_pixels": pytest.approx(0.8 * known[pair.resolution].pixels, rel=1e-12),
            "batch_size": pair.batch_size,
            "n_aspects": len(known[pair.resolution].sizes),
        }
        for number, pair in enumerate(table.pairs)
    ]
    assert case["visit_order"] == order
    assert table.num_buckets == case["num_bucket"]


@pytest.mark.parametrize("case", cases("buckets", "assign_deterministic"))
def test_assignment_without_chance(case):
    table = table_of(read("buckets", "assign_deterministic")["configs"][case["config"]])
    assigned = assign(table, [row[:3] for row in case["rows"]], frame_interval=case["frame_interval"])
    assert bucket_list(table, assigned) == [row[3] for row in case["rows"]]
    sizes = zip(assigned.pair, assigned.aspect, strict=True)
    assert [None if pair < 0 else list(table.size(pair, aspect)) for pair, aspect in sizes] == [
        row[4] for row in case["rows"]
    ]


@pytest.mark.parametrize("case", cases("buckets", "assign_draws"))
def test_assignment_from_draws(case):
    table = table_of(read("buckets", "assign_draws")["configs"][case["config"]])
    samples = case["samples"]
    draws = [{(r, t): {"length": a, "keep": b} for r, t, a, b in sample["draws"]} for sample in samples]

    def uniforms(pair, which, rows):
        return np.array([draws[row][pair.resolution, pair.num_frames][which] for row in rows])

    sizes = [[sample[name] for name in ("num_frames", "height", "width")] for sample in samples]
    assigned = assign(table, sizes, frame_interval=case["frame_interval"], uniforms=uniforms)
    assert bucket_list(table, assigned) == [sample["bucket"] for sample in samples]


@pytest.mark.parametrize("case", cases("buckets", "assign_probs"))
def test_assignment_probabilities(case):
    table = table_of(read("buckets", "assign_probs")["configs"][case["config"]])
    count = 20_000
    sample = [case["sample"][name] for name in ("num_frames", "height", "width")]
    assigned = assign(table, [sample] * count, frame_interval=case["frame_interval"], epoch=3)
    wanted = {(row["resolution"], row["num_frames"], row["aspect"]): row["p"] for row in case["expected"]}
    wanted[None] = case["p_dropped"]
    found = [None if bucket is None else tuple(bucket) for bucket in bucket_list(table, assigned)]
    for bucket in set(found) | set(wanted):
        p = wanted.get(bucket, 0.0)
        assert abs(found.count(bucket) / count - p) <= 5 * (p * (1 - p) / count) ** 0.5 + 1e-9, bucket


@pytest.mark.parametrize("case", cases("buckets", "sampler_orders"))
def test_orders(case):
    table = table_of(read("buckets", "sampler_orders")["configs"][case["config"]])
    assigned = assign(table, case["samples"], frame_interval=case["frame_interval"], epoch=case["epoch"])
    plan = EpochPlan(
        table, assigned, seed=42, epoch=case["epoch"], shuffle=case["shuffle"], drop_last=case["drop_last"]
    )
    facts = case["facts"]
    if case["config"] == "certain":  # no chance in the assignment
        assert bucket_list(table, assigned) == case["assigned"]
        assert int((assigned.pair >= 0).sum()) == facts["n_assigned"]
    if case["config"] == "certain" and case["drop_last"]:
        assert len(plan) == facts["n_micro_batches"]
        assert {ranks: plan.num_steps(int(ranks)) for ranks in facts["steps_per_rank"]} == facts["steps_per_rank"]
        shapes = {}
        for batch in (plan.micro_batch(number) for number in range(len(plan))):
            name = "x".join(map(str, batch.size))
            shapes[name] = [shapes.get(name, [0])[0] + 1, len(batch.rows)]
        assert shapes == facts["micro_batches_and_batch_size_of_shape"]
    if not case["drop_last"]:
        rows = np.concatenate([plan.micro_batch(number).rows for number in range(len(plan))])
        assert set(facts["legacy_dropped_ids"]) <= set(rows.tolist())
        assert set(rows.tolist()) == set(np.flatnonzero(assigned.pair >= 0).tolist())
    if case["tier"] != "exact":
        return
    for ranks, orders in case["orders"].items():
        for rank, order in enumerate(orders):
            assert as_golden(plan.batches(rank, int(ranks))) == order
    for resume in case["resume"]:
        if resume["replayed_micro_batches"] == 0:
            ranks, start = resume["resumed_with_ranks"], resume["steps_done"] * resume["saved_with_ranks"]
            remaining = [as_golden(plan.batches(rank, ranks, start)) for rank in range(ranks)]
            assert remaining == resume["remaining"]


@pytest.mark.parametrize("case", cases("buckets", "fixed_and_features", "fixed"))
def test_fixed_sizes(case):
    options = {name: case[name] for name in ("batch_size", "seed", "epoch", "shuffle")}
    ranks = case["ranks"]
    plan = FixedPlan(case["n_samples"], (1, 8, 8), num_ranks=ranks, **options)

    def batches(start):
        steps = range(start, plan.num_steps(ranks))
        return [[plan.micro_batch(step * ranks + rank).rows.tolist() for step in steps] for rank in range(ranks)]

    assert batches(0) == case["batches_of_rank"]
    assert len(batches(0)[0]) == case["steps_per_epoch"]
    assert batches(case["resume"]["steps_done"]) == case["resume"]["remaining_of_rank"]


@pytest.mark.parametrize("case", cases("buckets", "fixed_and_features", "features"))
def test_stored_features(case):
    def orders(start):
        return [
            feature_batches(
                case["files"], case["batches_per_file"], rank=rank, num_ranks=case["ranks"], start=start
            ).tolist()
            for rank in range(case["ranks"])
        ]

    assert orders(0) == case["order_of_rank"]
    used = {number for order in orders(0) for number in order}
    assert sorted(set(range(case["files"] * case["batches_per_file"])) - used) == case["unused_batches"]
    if "resume" in case:
        assert orders(case["resume"]["steps_done"]) == case["resume"]["remaining_of_rank"]


def as_golden(batches):
    return [{"thw": list(batch.size), "ids": batch.rows.tolist()} for batch in batches]
