"""The buckets of the validation loss: which are chosen, which clips are in one, and in which batches."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from sora_cli.config.train_schema import DataSection
from sora_cli.errors import UsageError
from sora_cli.evaluation.loss_buckets import LossBucket, loss_batches, loss_buckets, parse_bucket
from sora_cli.training.source import ClipSource
from sora_cli.training.table import ClipTable


def source(*clips: tuple[int, int, int], **data) -> ClipSource:
    """A table of clips (frames, height, width)."""
    columns = dict(zip(("num_frames", "height", "width"), np.array(clips).T, strict=True))
    content = pl.DataFrame({"path": [f"{row}.mp4" for row in range(len(clips))], **columns})
    return ClipSource(ClipTable(content, root=None), DataSection(**data), 1, None)


def rows(batches) -> list[list[int]]:
    return [batch.rows.tolist() for batch in batches.batches]


def members(batches) -> list[int]:
    return sorted(row for batch in rows(batches) for row in batch)


WIDE, TALL = (9, 144, 256), (9, 256, 144)


@pytest.mark.parametrize("batch", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_every_clip_is_seen_once_and_batches_have_one_shape(batch: int, num_ranks: int):
    clips = [WIDE, TALL, WIDE, WIDE, TALL, WIDE, (9, 200, 200)]
    found = loss_batches(source(*clips), LossBucket("144p", 5, batch), num_ranks=num_ranks)
    assert members(found) == list(range(len(clips)))
    assert found.num_rows == len(clips)
    assert len(found) >= min(num_ranks, 3), "no process is left without work"
    for each in found.batches:
        assert len(each.rows) <= batch
        assert not each.is_repeat.any()
        frames, height, width = each.size
        assert frames == 5
        assert all(np.sign(clips[row][1] - clips[row][2]) == np.sign(height - width) for row in each.rows)


def test_who_qualifies():
    least = 0.8 * 144 * 256
    clips = [
        (6, 144, 256),
        (5, 144, 256),  # as many frames as the bucket has, which are not more
        (1, 144, 256),
        (6, 144, int(least / 144) + 1),
        (6, 144, int(least / 144)),
        (900, 2000, 2000),
    ]
    found = loss_batches(source(*clips), LossBucket("144p", 5, 10))
    assert members(found) == [0, 3, 5]
    assert found.left_out == {"too short": 2, "too small": 1}
    pictures = loss_batches(source(*clips), LossBucket("144p", 1, 10))
    assert rows(pictures) == [[2]]
    assert pictures.left_out == {"no pictures": 4, "too small": 1}
    spread = loss_batches(source(*clips, frame_interval=2), LossBucket("144p", 5, 10))
    assert rows(spread) == [[5]]


def test_the_reference_fills_up_early_groups_and_forgets_the_last_batches():
    """The example of the specification: groups of 15 and 20, ten at a time."""
    clips = source(*[WIDE] * 15, *[TALL] * 20)
    found = loss_batches(clips, LossBucket("144p", 5, 10), wraps=True)
    assert rows(found) == [list(range(10)), [*range(10, 15), *range(5)], list(range(15, 25))]
    assert members(loss_batches(clips, LossBucket("144p", 5, 10))) == list(range(35))


def test_in_the_reference_a_small_group_is_gone():
    clips = source(*[WIDE] * 4, *[TALL] * 10)
    assert rows(loss_batches(clips, LossBucket("144p", 5, 10), wraps=True)) == [list(range(4, 14))]
    none = loss_batches(source(*[WIDE] * 9, *[TALL] * 9), LossBucket("144p", 5, 10), wraps=True)
    assert rows(none) == []
    assert none.num_rows == 18


def test_choosing_buckets():
    table = {"240p": {9: 4, 1: [1.0, 8], 5: None}, "144p": {9: [[0.1, 0.2], 2]}, "360p": {1: 3}}
    found = loss_buckets(table)
    assert found == [("240p", 9, 4), ("240p", 1, 8), ("144p", 9, 2), ("360p", 1, 3)]
    assert loss_buckets(table, rows=["144p", "240p"], most=3) == [("240p", 9, 3), ("240p", 1, 3), ("144p", 9, 2)]
    assert loss_buckets(table, start=1, end=2) == [("144p", 9, 2)]
    assert loss_buckets(table, start=2, end=9) == [("360p", 1, 3)]
    assert loss_buckets(table, start=3) == []
    assert parse_bucket("144p:51:8") == ("144p", 51, 8)
    assert parse_bucket("144p:51") == ("144p", 51, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: loss_buckets(rows=["145p"]), "unknown row of the bucket table '145p'"),
        (lambda: loss_buckets({"144p": 3}), "data.bucket_config must hold"),
        (lambda: loss_buckets({"145p": {1: 3}}), "unknown resolution"),
        (lambda: loss_buckets({"144p": {1: "x"}}), "144p.1"),
        (lambda: parse_bucket("144p"), "is not RES:FRAMES:BATCH"),
        (lambda: parse_bucket("144p:0:1"), "is not RES:FRAMES:BATCH"),
        (lambda: parse_bucket("145p:5"), "unknown resolution"),
    ],
)
def test_what_is_refused(call, message: str):
    with pytest.raises(UsageError, match=message):
        call()
