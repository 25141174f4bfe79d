"""The batches of an epoch."""

from __future__ import annotations

import numpy as np
import pytest

from sora_cli.training.buckets import BucketTable
from sora_cli.training.plan import EpochPlan, FixedPlan

TABLE = BucketTable({"360p": {51: [[0.7, 1.0], 3], 1: [1.0, 8]}, "144p": {51: [1.0, 4]}})


def assigned(count=500, epoch=0):
    generator = np.random.default_rng(0)
    frames = generator.choice([1, 60, 200], count)
    sizes = np.array([[360, 640], [640, 360], [720, 1280]])[generator.integers(0, 3, count)]
    return TABLE.assign(frames, *sizes.T, seed=5, epoch=epoch)


def rows_of(batches):
    return [int(row) for batch in batches for row in batch.rows]


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_ranks_share_no_rows_and_have_equally_many_steps(ranks):
    plan = EpochPlan(TABLE, assigned(), seed=5, epoch=0)
    parts = [plan.batches(rank, ranks) for rank in range(ranks)]
    assert {len(part) for part in parts} == {plan.num_steps(ranks)}
    every = [row for part in parts for row in rows_of(part)]
    assert len(every) == len(set(every))


def test_going_on_with_other_ranks_repeats_and_loses_nothing():
    plan = EpochPlan(TABLE, assigned(), seed=5, epoch=2)
    before = [row for rank in range(4) for row in rows_of(plan.batches(rank, 4)[:7])]
    again = EpochPlan(TABLE, assigned(), seed=5, epoch=2)
    after = [row for rank in range(3) for row in rows_of(again.batches(rank, 3, start=28))]
    every = rows_of(plan.micro_batch(number) for number in range(28 + plan.num_steps(3, 28) * 3))
    assert sorted(before + after) == sorted(every)


def test_every_row_is_left_over_equally_often():
    """Two of 14 clips in batches of 3: over 600 epochs each is left over about 600/7 times."""
    table = BucketTable({"360p": {51: [1.0, 3]}})
    found = table.assign(*(np.full(14, value) for value in (60, 360, 640)), seed=0, epoch=0)
    used = np.zeros(14, int)
    for epoch in range(600):
        used[rows_of(EpochPlan(table, found, seed=0, epoch=epoch).batches(0, 1))] += 1
    assert abs(600 - used - 600 / 7).max() < 45


def test_nothing_is_dropped_when_asked():
    found = assigned(40)
    plan = EpochPlan(TABLE, found, seed=5, epoch=0, shuffle=False, drop_last=False)
    for ranks in (1, 3, 7):
        batches = [batch for rank in range(ranks) for batch in plan.batches(rank, ranks)]
        new = [
            int(row) for batch in batches for row, again in zip(batch.rows, batch.is_repeat, strict=True) if not again
        ]
        assert sorted(new) == np.flatnonzero(found.pair >= 0).tolist()
        assert all(len(batch.rows) == len(batch.is_repeat) > 0 for batch in batches)


def test_an_empty_epoch():
    found = TABLE.assign(*(np.full(3, value) for value in (60, 16, 16)), seed=0, epoch=0)
    plan = EpochPlan(TABLE, found, seed=0, epoch=0)
    assert (len(plan), plan.num_steps(2), plan.batches(0, 2)) == (0, 0, [])


def test_clips_of_one_size_in_a_random_order():
    plans = [FixedPlan(40, (16, 8, 8), 4, num_ranks=2, seed=0, epoch=epoch) for epoch in (0, 0, 1)]
    orders = [np.concatenate([plan.micro_batch(number).rows for number in range(len(plan))]) for plan in plans]
    assert orders[0].tolist() == orders[1].tolist() != orders[2].tolist()
    assert all(sorted(order) == list(range(40)) for order in orders)


def test_clips_of_one_size_go_on_with_other_ranks():
    first = FixedPlan(40, (16, 8, 8), 4, num_ranks=2, seed=0, epoch=0)
    done = np.concatenate([first.micro_batch(number).rows for number in range(4)])
    rest = FixedPlan(40, (16, 8, 8), 4, num_ranks=3, seed=0, epoch=0, start=4)
    assert (rest.num_steps(3, 4), len(rest)) == (2, 10)
    left = np.concatenate([rest.micro_batch(number).rows for number in range(4, 10)])
    assert sorted([*done, *left]) == list(range(40))
    with pytest.raises(ValueError, match="for 3 ranks"):
        rest.num_steps(2)


def test_clips_of_one_size_that_fill_up_are_the_same_when_a_run_goes_on():
    whole = FixedPlan(7, (16, 8, 8), 2, num_ranks=2, seed=0, epoch=0)
    rest = FixedPlan(7, (16, 8, 8), 2, num_ranks=2, seed=0, epoch=0, start=2)
    assert len(whole) == len(rest) == 4
    for number in (2, 3):
        assert whole.micro_batch(number).rows.tolist() == rest.micro_batch(number).rows.tolist()
        assert whole.spares(number, 6).tolist() == rest.spares(number, 6).tolist()
    every = FixedPlan(7, (16, 8, 8), 2, num_ranks=1, seed=0, epoch=0, shuffle=False, drop_last=False)
    counted = [row for n in range(len(every)) for row in every.micro_batch(n).rows[~every.micro_batch(n).is_repeat]]
    assert counted == list(range(7))


def test_a_bucket_of_one_clip_has_spares_of_other_buckets():
    frames, height, width = np.array([[200, 360, 640], *[[60, 640, 360]] * 6, *[[1, 360, 640]] * 9]).T
    table = BucketTable({"360p": {102: [1.0, 1], 51: [1.0, 3], 1: [1.0, 2]}})
    plan = EpochPlan(table, table.assign(frames, height, width, seed=0, epoch=0), seed=0, epoch=0)
    of_size = {plan.micro_batch(number).size[0]: number for number in range(len(plan))}
    assert plan.spares(of_size[102], 5).tolist() == [0], "nothing else is long enough"
    assert set(plan.spares(of_size[51], 5)[-1:]) == {0}, "longer clips stand behind"
    assert set(plan.spares(of_size[1], 5)) <= set(range(7, 16)), "pictures for pictures"


def test_spares_are_never_of_a_bucket_with_fewer_clips_than_a_batch():
    table = BucketTable({"144p": {51: [1.0, 1], 17: [1.0, 16]}})
    frames = np.array([60] * 3 + [20] * 15 + [20] * 16)
    width = np.array([256] * 18 + [144] * 16)
    found = table.assign(frames, 400 - width, width, seed=0, epoch=0)
    plan = EpochPlan(table, found, seed=0, epoch=0)
    assert sorted(len(bucket.rows) for bucket in plan.buckets) == [0, 3, 16]
    for number in range(len(plan)):
        assert not set(plan.spares(number, 8)) & set(range(3, 18))


def test_spares_are_other_rows_of_the_bucket():
    found = TABLE.assign(*(np.full(30, value) for value in (60, 360, 640)), seed=0, epoch=0)
    plan = EpochPlan(TABLE, found, seed=0, epoch=0)
    spares, used = plan.spares(1, 8), plan.micro_batch(1).rows
    assert len(spares) == len(set(spares)) > 3
    assert not set(spares) & set(used)
    assert plan.spares(1, 8).tolist() == spares.tolist() != plan.spares(2, 8).tolist()
