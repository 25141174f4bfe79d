"""What clips are given: which pictures, where, and what is wrong with them."""

from __future__ import annotations

import pytest

from sora_cli.conditioning.mask_strategy import parse_strategy
from sora_cli.conditioning.references import Given, Still, extension_of, given_to, still_window
from sora_cli.config.schema import ConditioningSection
from sora_cli.errors import UsageError
from sora_cli.plugin.manager import get_plugins


@pytest.fixture
def vaes():
    return {name: get_plugins().get("vae", name) for name in ("nano", "opensora-vae-v1.2", "sd-vae-ft-ema")}


@pytest.fixture
def pictures():
    from pathlib import Path

    for name in ("a.png", "b.png", "c@1.png"):
        Path(name).write_bytes(name.encode())


def given(vae, settings=None, *, prompt=0, num_prompts=1, num_frames=51, **conditioning):
    section = ConditioningSection(**conditioning)
    return given_to(
        section, settings or {}, prompt=prompt, num_prompts=num_prompts, vae=vae, num_frames=num_frames, fps=24.0
    )


def test_nothing(vaes):
    found = given(vaes["nano"])
    assert not found
    assert found == Given()
    assert found.record() == {}, "clips from before there were pictures are recognised"


def test_named_places(vaes, pictures):
    named = {"first": "a.png", "last": "b.png", "keyframes": ("c@1.png@1s",)}
    for name, places in (("nano", [0, 6, 13]), ("opensora-vae-v1.2", [0, 6, 14]), ("sd-vae-ft-ema", [0, 24, 50])):
        found = given(vaes[name], **named)
        assert [still.latent for still in found.stills] == places, name
        assert [path.name for path in found.files] == ["a.png", "c@1.png", "b.png"]
    assert len(set(found.digests)) == 3
    assert given(vaes["nano"], keyframes=("a.png@24",)).stills == (Still(0, 6),), "a number is a frame"


def test_references_and_their_strategy(vaes, pictures):
    vae = vaes["nano"]
    alone = given(vae, references=("a.png",))
    assert alone.groups == parse_strategy("0"), "a picture alone is the first frame"
    two = given(vae, references=("a.png;b.png",), mask_strategy=("0;0,1,0,-1,1",))
    assert [path.name for path in two.files] == ["a.png", "b.png"]
    assert two.record()["given"]["mask_strategy"] == "0,0,0,0,1,0.0;0,1,0,-1,1,0.0"
    inline = given(vae, {"reference_path": "b.png", "mask_strategy": "0"}, references=("a.png",))
    assert [path.name for path in inline.files] == ["b.png"], "the prompt's own settings win"
    assert not given(vae, {"reference_path": None, "mask_strategy": None}, references=("a.png",))
    each = {"references": ("a.png", "b.png"), "mask_strategy": ("0", "")}
    assert [given(vae, prompt=index, num_prompts=2, **each).files[0].name for index in (0, 1)] == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("conditioning", "message"),
    [
        ({"first": "absent.png"}, "there is no picture or video absent.png"),
        ({"mask_strategy": ("0",)}, "has no reference"),
        ({"references": ("a.png",), "mask_strategy": ("0,0,0,x",)}, "target start 'x' is no number"),
        ({"references": ("a.png",), "mask_strategy": ("0;",)}, "loop is empty"),
        ({"references": ("a.png",), "mask_strategy": ("0,0,0,0,1,2",)}, "is not between 0 and 1"),
        ({"keyframes": ("a.png",)}, "is no picture with a time"),
        ({"keyframes": ("a.png@3s",)}, "is after the end: the clip has 51 frames"),
        ({"first": "a.png", "keyframes": ("b.png@0s",)}, "another picture are at frame 0"),
        ({"references": ("a.png", "b.png")}, "2 of --reference and 1 prompts"),
        ({"references": ("a.png",), "edit": "b.png"}, "--edit and --reference are two ways"),
    ],
)
def test_what_is_wrong(vaes, pictures, conditioning, message):
    with pytest.raises(UsageError) as caught:
        given(vaes["nano"], **conditioning)
    assert message in str(caught.value.message)


def test_editing(vaes, pictures):
    found = given(vaes["nano"], edit="a.png", strength=0.4)
    assert found.groups == parse_strategy("0,0,0,0,14,0.4")
    assert not given(vaes["nano"], edit="a.png", strength=1.0), "nothing of it is left"


def test_alignment_is_part_of_a_clip(vaes, pictures):
    records = [
        given(vaes["nano"], references=("a.png",), mask_strategy=("0,0,0,3,2",), align=align).record()
        for align in (None, 2, 4)
    ]
    assert len({str(record) for record in records}) == 3


@pytest.mark.parametrize(
    ("name", "backward", "overlap", "sampled"),
    [
        ("nano", False, 17, 24 + 17),
        ("nano", True, 16, 1 + 40),
        ("opensora-vae-v1.2", False, 17, 24 + 17),
        ("opensora-vae-v1.2", True, 17, 51),
        ("sd-vae-ft-ema", False, 4, 28),
        ("sd-vae-ft-ema", True, 4, 28),
    ],
)
def test_a_video_goes_on(vaes, pictures, name, backward, overlap, sampled):
    """The overlap is whole pieces, and backward it ends where the clip ends."""
    section = ConditioningSection(extend="a.png", backward=backward)
    found = extension_of(section, vaes[name], 24, lambda frames: frames)
    assert (found.overlap, found.sampled, found.new) == (overlap, sampled, 24)
    assert found.start == (sampled - overlap - 24 if backward else overlap)
    assert extension_of(ConditioningSection(), vaes[name], 24, lambda frames: frames) is None


def test_places_outside_are_refused(vaes, pictures):
    for strategy, message in (("0,1", "names reference 1"), ("0,0,3", "lies outside"), ("0,0,0,20", "lies outside")):
        found = given(vaes["nano"], references=("a.png",), mask_strategy=(strategy,))
        with pytest.raises(UsageError, match=message):
            found.placements(14, [1])


@pytest.mark.parametrize(
    ("name", "frames", "latent", "window"),
    [
        ("nano", 51, 0, (1, 0)),
        ("nano", 51, 13, (5, 1)),
        ("opensora-vae-v1.2", 51, 0, (1, 0)),
        ("opensora-vae-v1.2", 51, 3, (17, 3)),
        ("opensora-vae-v1.2", 51, 14, (17, 4)),
        ("opensora-vae-v1.2", 20, 5, (3, 0)),
        ("sd-vae-ft-ema", 16, 15, (1, 0)),
    ],
)
def test_stills_are_coded_as_in_the_clip(vaes, name, frames, latent, window):
    """A clip that stands still has the same latent there."""
    assert still_window(vaes[name], frames, latent) == window
