"""Measuring piece by piece: the same numbers as of the whole clip, for measures of frames and of pairs."""

from __future__ import annotations

import pytest
import torch

from sora_cli.errors import UsageError
from sora_cli.evaluation.measures import Measure
from sora_cli.plugin.specs import MetricSpec
from sora_cli.tasks.codec import name_targets
from sora_cli.tasks.vae_quality import Reconstructed, measure


class Changes:
    """How much more the video changes from frame to frame than the original."""

    overlap = 1

    def __call__(self, reference, video):
        return (video.diff(dim=2) - reference.diff(dim=2)).abs().mean(dim=(1, 3, 4))


class Differences:
    overlap = 0

    def __call__(self, reference, video):
        return (video - reference).abs().mean(dim=(1, 3, 4))


def spec(name):
    return MetricSpec(name=name, summary="", target="", unit="", higher_is_better=False)


METRICS = {
    "changes": Measure(spec("changes"), Changes(), {}),
    "differences": Measure(spec("differences"), Differences(), {}),
}


def pieces(lengths):
    generator = torch.Generator().manual_seed(0)
    original, full = (torch.rand(1, 3, 11, 4, 4, generator=generator) * 2 - 1 for _ in range(2))
    for ours, theirs in zip(original.split(lengths, dim=2), full.split(lengths, dim=2), strict=True):
        yield Reconstructed(ours, theirs, None)


@pytest.mark.parametrize("lengths", [[4, 4, 3], [1, 1, 9], [1] * 11])
def test_pieces_measure_as_the_whole(lengths):
    whole, found = measure(pieces([11]), METRICS), measure(pieces(lengths), METRICS)
    assert found == pytest.approx(whole)


def test_a_single_frame_has_no_change():
    one = next(pieces([1] * 11))
    assert measure(iter([one]), METRICS)["changes"] is None


def test_names_of_what_is_written(tmp_path):
    one = name_targets(["a/x.mp4"], tmp_path / "y.mp4", [".mp4"], overwrite=False)
    assert one == [tmp_path / "y.mp4"]
    many = name_targets(["a/x.mp4", "b/y.png"], tmp_path, [".mp4", ".png"], overwrite=False)
    assert many == [tmp_path / "x.mp4", tmp_path / "y.png"]
    for sources, output, suffixes, message in (
        (["a.mp4", "b.mp4"], tmp_path / "y.mp4", [".mp4"] * 2, "cannot be written to"),
        (["a.mp4"], tmp_path / "y.avi", [".mp4"], "must end in .mp4"),
        (["a/x.mp4", "b/x.mp4"], tmp_path, [".mp4"] * 2, "two files would be written"),
        ([tmp_path / "z.mp4"], tmp_path / "z.mp4", [".mp4"], "is what is read"),
    ):
        with pytest.raises(UsageError, match=message):
            name_targets(sources, output, suffixes, overwrite=False)
