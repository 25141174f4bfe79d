"""The parts of long videos: lengths, borders, and where frames are, for each kind of autoencoder."""

from __future__ import annotations

from pathlib import Path

import pytest

from sora_cli.conditioning.long_video import Segments, notes_on, segments_of
from sora_cli.conditioning.references import Still, given_to
from sora_cli.config.schema import GenerateConfig
from sora_cli.errors import UsageError
from sora_cli.plugin.manager import get_plugins

NANO, PIECES, SINGLE = "nano", "opensora-vae-v1.2", "sd-vae-ft-ema"


def segments(vae, num_frames, count, **conditioning):
    config = GenerateConfig(shape={"segments": count}, conditioning=conditioning)
    return segments_of(config, get_plugins().get("vae", vae), num_frames)


@pytest.mark.parametrize(
    ("vae", "frames", "count", "overlap", "whole", "latents", "total"),
    [
        (PIECES, 51, 3, None, 51, 5, 119),  # generation.md section 12
        (PIECES, 102, 2, 34, 102, 10, 170),
        (PIECES, 60, 3, None, 51, 5, 51 + 34 + 43),  # a part ends with its last whole piece
        (SINGLE, 16, 2, None, 16, 4, 28),
        (SINGLE, 16, 3, 5, 16, 5, 16 + 11 + 11),
        (NANO, 49, 3, None, 49, 5, 49 + 32 + 32),
        (NANO, 51, 3, None, 49, 5, 49 + 32 + 34),
        (NANO, 51, 2, 1, 49, 1, 49 + 50),
    ],
)
def test_lengths(vae, frames, count, overlap, whole, latents, total):
    found = segments(vae, frames, count, overlap=overlap)
    assert (found.whole, found.overlap_latents, found.total) == (whole, latents, total)
    spans = [found.span(index) for index in range(count)]
    assert sum(end - start for start, end in spans) == total
    assert spans[0][0] == 0
    assert spans[-1][1] == frames
    places = [(index, frame) for index, (start, end) in enumerate(spans) for frame in range(start, end)]
    assert [found.locate(frame) for frame in range(total)] == places


def test_one_part_is_the_clip_as_it_is():
    found = segments(PIECES, 60, 1)
    assert found == Segments(1, 60, 60)
    assert found.span(0) == (0, 60)
    assert found.record() == {}, "clips from before there were parts are recognised"


@pytest.mark.parametrize(
    ("vae", "frames", "conditioning", "message"),
    [
        (PIECES, 1, {}, "a picture has no parts"),
        (PIECES, 51, {"overlap": 5}, "an overlap of 5 frames is not whole pieces of opensora-vae-v1.2"),
        (PIECES, 17, {}, "parts of 17 frames have nothing new after an overlap of 17"),
        (NANO, 51, {"overlap": 16}, "near it: 13 or 17"),
        (SINGLE, 4, {}, "have nothing new"),
        (NANO, 51, {"backward": True}, "go forward in time"),
    ],
)
def test_what_does_not_fit(vae, frames, conditioning, message):
    with pytest.raises(UsageError) as caught:
        segments(vae, frames, 2, **conditioning)
    assert message in f"{caught.value}\n{caught.value.hint}"


def test_pictures_are_at_times_of_the_whole_video():
    for name in ("a.png", "b.png", "c.png"):
        Path(name).write_bytes(name.encode())
    long = segments(NANO, 51, 3)
    config = GenerateConfig(conditioning={"first": "a.png", "last": "c.png", "keyframes": ("b.png@60",)})
    found = given_to(
        config.conditioning,
        {},
        prompt=0,
        num_prompts=1,
        vae=get_plugins().get("vae", NANO),
        num_frames=51,
        fps=24.0,
        segments=long,
    )
    # Frame 60 is the 28th of the second part, in its latent frame 7.
    assert long.locate(60) == (1, 28)
    assert found.stills == (Still(0, 0), Still(1, 7, 1), Still(2, 13, 2))
    assert found.record()["given"]["stills"] == [[0, 0], [1, 7, 1], [2, 13, 2]]


def test_notes():
    one, three = Segments(1, 51, 51), segments(NANO, 51, 3)
    text = "|0|a cat|2|a dog|5|a cow"
    assert notes_on(one, ["a cat"], 24) == []
    assert "only 'a cat' of the 3 parts" in notes_on(one, [text], 24)[0]
    unused, length = notes_on(three, [text], 24)
    assert "|5|" in unused
    assert "all but the last end at frame 49" in length
    assert "115 frames, 4.79 s" in length
