"""Buckets: what a configuration may say, and what chance depends on."""

from __future__ import annotations

import numpy as np
import pytest

from sora_cli.errors import UsageError
from sora_cli.training.buckets import BucketTable, hashed_uniforms

CONFIG = {"360p": {102: [[0.5, 0.4], 2], 51: [0.5, 4], 1: [0.3, 8]}, "144p": {51: [1.0, 8], 1: [1.0, 16]}}


def clips(count, frames=200, height=720, width=1280):
    return (np.full(count, value) for value in (frames, height, width))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "the bucket configuration is empty"),
        ({"360P": {1: [1.0, 2]}}, "unknown resolution in the bucket configuration '360P'"),
        ({"360p": {}}, "bucket_config.360p: there is no length in it"),
        ({"360p": {0: [1.0, 2]}}, "bucket_config.360p.0: the number of frames"),
        ({"360p": {51: 1.0}}, "bucket_config.360p.51: 1.0 is not [keep, batch size]"),
        ({"360p": {51: [1.5, 2]}}, "bucket_config.360p.51: keep 1.5 is not a probability"),
        ({"360p": {51: [[1.0, "x"], 2]}}, "length 'x' is not a probability"),
        ({"360p": {51: [[0.5], 2]}}, "keep [0.5] is not a probability"),
        ({"360p": {51: [0.5, None]}}, "clips stay here with probability 0.5, so it needs a batch size"),
        ({"360p": {51: [0.5, 0]}}, "the batch size must be a whole number from 1, not 0"),
    ],
)
def test_wrong_configurations(config, message):
    with pytest.raises(UsageError) as caught:
        BucketTable(config)
    assert message in str(caught.value)


def test_lengths_that_the_autoencoder_cannot_divide():
    def check(frames):
        if frames % 17 and frames != 1:
            raise UsageError(f"{frames} frames are not made of 17", hint="use 51")

    BucketTable(CONFIG, check)
    BucketTable({"360p": {52: [0.0, None]}}, check)  # nothing is trained there
    with pytest.raises(UsageError, match=r"bucket_config.360p.52: 52 frames are not made of 17"):
        BucketTable({"360p": {52: [1.0, 1]}}, check)


def test_a_pair_for_pictures_ignores_the_length():
    assert BucketTable({"360p": {1: [[0.5, 0.1], 4]}}).pairs[0].length is None


def test_reasons():
    table = BucketTable({"720p": {51: [0.0, None]}, "360p": {51: [[1.0, 0.0], 1]}})
    frames, height, width = np.array([[10, 90, 160], [10, 360, 640], [60, 360, 640], [60, 720, 1280]]).T
    found = table.assign(frames, height, width, seed=0, epoch=0)
    assert found.dropped() == {"too small": 1, "too short": 1, "blocked": 0, "left out by chance": 2}
    only_blocker = BucketTable({"720p": {51: [0.0, None]}})
    assert only_blocker.assign(frames, height, width, seed=0, epoch=0).dropped()["blocked"] == 1


def test_chance_does_not_depend_on_other_rows_or_buckets():
    table = BucketTable(CONFIG)
    whole = table.assign(*clips(1000), seed=1, epoch=0)
    part = table.assign(*clips(100), seed=1, epoch=0)
    assert (whole.pair[:100] == part.pair).all()
    more = BucketTable({**CONFIG, "720p": {408: [0.5, 1]}}).assign(*clips(1000), seed=1, epoch=0)
    assert (more.pair - 1 == whole.pair).all()  # nobody is long enough for the new first pair


def test_epochs_and_pairs_are_independent():
    """Keep decisions of neighbouring epochs and pairs agree by chance only, unlike sums of seed, epoch and pair."""
    rows = np.arange(100_000)
    drawn = [hashed_uniforms(rows, (42, epoch, "360p", frames, "keep")) for epoch in (0, 1) for frames in (51, 102)]
    for index, one in enumerate(drawn):
        assert abs(one.mean() - 0.5) < 0.005
        assert abs(np.corrcoef(one[:-1], one[1:])[0, 1]) < 0.015
        for other in drawn[index + 1 :]:
            assert abs(np.corrcoef(one, other)[0, 1]) < 0.015
