"""What clips are given: which pictures, where, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from sora_cli.conditioning.mask_strategy import parse_strategy
from sora_cli.conditioning.references import Given, Still, extension_of, given_to, still_window
from sora_cli.conditioning.sources import Sources
from sora_cli.config.schema import ConditioningSection
from sora_cli.errors import UsageError
from sora_cli.plugin.manager import get_plugins


@pytest.fixture
def vaes():
    return {name: get_plugins().get("vae", name) for name in ("nano", "opensora-vae-v1.2", "sd-vae-ft-ema")}


@pytest.fixture
def pictures():
    for number, name in enumerate(("a.png", "b.png", "c@1.png")):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(name)


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


@pytest.mark.parametrize(
    ("name", "overlaps", "sampled", "new"),
    [
        ("nano", (17, 16), 1 + 56, 24),
        ("opensora-vae-v1.2", (17, 17), 68, 34),
        ("sd-vae-ft-ema", (4, 4), 32, 24),
    ],
)
def test_between_two_videos(vaes, pictures, name, overlaps, sampled, new):
    """The second video starts where a piece of the autoencoder does."""
    Path("a.mp4").write_bytes(b"a")
    Path("b.mp4").write_bytes(b"b")
    found = extension_of(ConditioningSection(connect=("a.mp4", "b.mp4")), vaes[name], 24, lambda frames: frames)
    assert tuple(video.overlap for video in found.videos) == overlaps
    assert [video.is_backward for video in found.videos] == [False, True]
    assert (found.sampled, found.new, found.start) == (sampled, new, overlaps[0])
    record = Given(extension=found).record()["given"]
    assert record["extension"]["digest"] != record["then"]["digest"]
    assert [record[name].get("seam") for name in ("extension", "then")] == ["carried", "carried"]


def test_between_pictures_and_videos(vaes, pictures):
    vae = vaes["nano"]
    Path("b.mp4").write_bytes(b"b")
    assert extension_of(ConditioningSection(connect=("a.png", "b.png")), vae, 24, lambda frames: frames) is None
    assert given(vae, connect=("a.png", "b.png")) == given(vae, first="a.png", last="b.png")
    to_video = extension_of(ConditioningSection(connect=("a.png", "b.mp4")), vae, 24, lambda frames: frames)
    assert (to_video.is_backward, to_video.start, to_video.new, to_video.sampled) == (True, 0, 25, 41)
    assert given(vae, connect=("a.png", "b.mp4")).stills == (Still(0, 0),)
    to_picture = extension_of(ConditioningSection(connect=("b.mp4", "a.png")), vae, 24, lambda frames: frames)
    assert (to_picture.is_backward, to_picture.start, to_picture.new) == (False, 17, 24)
    assert given(vae, connect=("b.mp4", "a.png"), num_frames=41).stills == (Still(0, 10),), "on the last frame"


def test_content_says_what_is_a_picture(vaes, pictures):
    for name, kind in (("still.gif", "GIF"), ("bare", "PNG"), ("picture.mp4", "PNG")):
        Image.new("RGB", (8, 8)).save(name, kind)
    frames = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in (0, 100, 200)]
    frames[0].save("moving.gif", save_all=True, append_images=frames[1:])
    for name in ("still.gif", "bare", "picture.mp4"):
        assert (
            extension_of(ConditioningSection(connect=("a.png", name)), vaes["nano"], 24, lambda frames: frames) is None
        )
    moving = ConditioningSection(connect=("moving.gif", "a.png"))
    assert extension_of(moving, vaes["nano"], 24, lambda frames: frames).file == Path("moving.gif")


def test_what_goes_on_takes_no_references_of_a_prompt(vaes, pictures):
    for conditioning in ({"extend": "a.mp4"}, {"connect": ("a.png", "b.png")}):
        for settings in ({"reference_path": "a.png"}, {"mask_strategy": "0"}):
            with pytest.raises(UsageError, match="takes no other pictures or videos, and the prompt names some"):
                given(vaes["nano"], settings, **conditioning)


def test_a_loop_without_a_given_beginning_has_sampled_frames_in_front_of_it(vaes, pictures):
    vae = vaes["nano"]
    assert given(vae, keyframes=("a.png@8",), num_frames=17).stills == (Still(0, 2),)
    assert given(vae, keyframes=("a.png@8",), num_frames=17, seamless=True).stills == (Still(0, 3),)
    late = given(vae, references=("a.png",), mask_strategy=("0,0,12,0,1",), num_frames=17, seamless=True)
    assert late.keeps_first(5), "how long the reference is does not matter"


def test_a_loop_ends_with_what_it_starts_with(vaes, pictures):
    vae = vaes["nano"]
    begun = given(vae, first="b.png", keyframes=("a.png@8",), num_frames=17, seamless=True)
    assert begun.stills == (Still(0, 0), Still(1, 2), Still(0, 4))
    placed = given(vae, references=("a.png;b.png",), mask_strategy=("0;0,1,12,0,3",), num_frames=17, seamless=True)
    assert placed.groups == parse_strategy("0;0,1,12,0,3;0,1,12,4,1"), "the later group is what is there"
    assert placed.strategy_text == "0,0,0,0,1,0.0;0,1,12,0,3,0.0", "as it was asked for"
    for other in ({"keyframes": ("a.png@15",)}, {"references": ("a.png",), "mask_strategy": ("0;0,0,0,-1",)}):
        with pytest.raises(UsageError, match="given at the end of a loop"):
            given(vae, first="b.png", num_frames=17, seamless=True, **other)
    pieces = given(vaes["opensora-vae-v1.2"], first="b.png", num_frames=34, seamless=True)
    assert pieces.stills == (Still(0, 0),), "a ring of pieces is cut elsewhere at each step"


def test_an_overlap_is_for_both_videos(vaes, pictures):
    Path("a.mp4").write_bytes(b"a")
    section = ConditioningSection(connect=("a.mp4", "a.mp4"), overlap=9)
    found = extension_of(section, vaes["nano"], 24, lambda frames: frames)
    assert [video.overlap for video in found.videos] == [9, 8], "as many pieces; the first also has a frame alone"
    with pytest.raises(UsageError, match="not whole pieces"):
        extension_of(section.model_copy(update={"overlap": 10}), vaes["nano"], 24, lambda frames: frames)
    with pytest.raises(UsageError, match="--connect takes no other pictures or videos, and last is given"):
        extension_of(section.model_copy(update={"last": "a.png"}), vaes["nano"], 24, lambda frames: frames)


def test_the_first_frame_is_kept(vaes, pictures):
    vae = vaes["nano"]
    assert given(vae, first="a.png").keeps_first(14)
    assert not given(vae, last="a.png").keeps_first(14)
    for strategy, kept in (("0", True), ("0,0,0,-14,2", True), ("0,0,0,0,3,0.5", False), ("0,0,0,1", False)):
        found = given(vae, references=("a.png",), mask_strategy=(strategy,))
        assert found.keeps_first(14) is kept, strategy


def test_paths_that_are_found_from_any_folder(pictures):
    section = ConditioningSection(first="a.png", keyframes=("~/k.png@1s",), connect=("a.mp4", "/b.mp4"), edit="-")
    found, here = Sources().conditioning_as_said(section), Path.cwd()
    assert found == {
        "first": f"{here}/a.png",
        "edit": "-",
        "keyframes": (f"{Path.home()}/k.png@1s",),
        "connect": (f"{here}/a.mp4", "/b.mp4"),
    }


@pytest.mark.parametrize(
    ("text", "column", "what"),
    [
        ("0;0,1,x,-1", 6, "reference start 'x' is no number"),
        ("0; 0,1,0,,1", 9, "target start is empty"),
        ("0,0,0,0,1,1.5", 10, "edit ratio 1.5 is not between 0 and 1"),
        ("0,0,0,0,1,0.5,3", 14, "7 fields instead of at most 6"),
        ("0;", 2, "loop is empty"),
    ],
)
def test_grammar_errors_show_the_place(text, column, what):
    with pytest.raises(UsageError) as caught:
        parse_strategy(text)
    assert what in caught.value.message
    assert caught.value.hint.splitlines()[:2] == [text, " " * column + "^"]


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
