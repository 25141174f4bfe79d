"""Sizes and lengths: what is made, what is said, what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sora_cli.config.schema import ShapeSection
from sora_cli.errors import UsageError
from sora_cli.plugin.specs import Constraints, TrainedSize
from sora_cli.video import shapes
from sora_cli.video.shapes import Size, resolve_shape

ANY = Constraints(min_side=8, max_side=8192)
BLOCKS = Constraints(first_frames=17, frame_step=17, max_frames=408)
STRIDE_4 = Constraints(first_frames=1, frame_step=4, max_frames=101)


def shape_of(constraints=ANY, **shape):
    return resolve_shape(ShapeSection(**shape), constraints, 24.0)


def test_every_resolution_aspect_ratio_and_duration():
    """The file is the table's size cut to multiples of 8, by fewer than 8 pixels; missing pairs are errors."""
    made = refused = 0
    for name, table in shapes.resolutions().items():
        for ratio in [*shapes.aspect_ratio_names(), *table.sizes]:
            key = shapes.aspect_names().get(shapes.flip_aspect(ratio), ratio)
            for duration, frames in shapes.durations().items():
                asked = {"resolution": name, "aspect_ratio": ratio, "duration": duration}
                if key not in table.sizes:
                    with pytest.raises(UsageError, match=f"resolution {name} has no aspect ratio {ratio}"):
                        shape_of(**asked)
                    refused += 1
                    continue
                clip = shape_of(**asked)
                assert (clip.asked_height, clip.asked_width) == table.sizes[key]
                assert clip.num_frames == frames
                for side, told in ((clip.height, clip.asked_height), (clip.width, clip.asked_width)):
                    assert side % 8 == 0
                    assert 0 <= told - side < 8
                assert bool(clip.notes) == ((clip.height, clip.width) != (clip.asked_height, clip.asked_width))
                # 16:9 is landscape: wider than high exactly when the name says so.
                wide, _, high = ratio.partition(":")
                if high:
                    assert (clip.asked_width > clip.asked_height) == (int(wide) > int(high))
                made += 1
    assert made == 10 * (8 * (18 + 17) + 4 * (4 + 40) + (1 + 40))  # lengths x (names + keys of each table)
    assert refused > 500


def test_the_default_aspect_ratio_is_landscape():
    assert shape_of(resolution="720p", duration="2s") == shapes.ClipShape(720, 1280, 51, 24.0, 24.0, 720, 1280)


def test_a_cut_size_is_said():
    clip = shape_of(resolution="240p", duration="2s")
    assert (clip.height, clip.width, clip.asked_height, clip.asked_width) == (240, 424, 240, 426)
    assert clip.notes == ("240p 16:9 is 240x426 (height x width); the file has 240x424",)


def test_frame_rates():
    assert shape_of(resolution="144p", duration="2s", fps=12).save_fps == 12
    clip = shape_of(resolution="144p", duration="2s", fps=12, save_fps=30)
    assert (clip.fps, clip.save_fps) == (12, 30)


@pytest.mark.parametrize(
    ("duration", "fps", "constraints", "frames", "note"),
    [
        ("3s", 24, ANY, 72, "3s is 72 frames at 24 fps; the clip has 72 (3 s)"),
        ("2.5s", 24, ANY, 60, "2.5s is 60 frames at 24 fps; the clip has 60 (2.5 s)"),
        ("1.2s", 24, ANY, 29, "1.2s is 28.8 frames at 24 fps; the clip has 29 (1.21 s)"),
        ("3s", 10, ANY, 30, "3s is 30 frames at 10 fps; the clip has 30 (3 s)"),
        ("3s", 24, BLOCKS, 68, "3s is 72 frames at 24 fps; the clip has 68 (2.83 s)"),
        ("3.4s", 24, BLOCKS, 85, "3.4s is 81.6 frames at 24 fps; the clip has 85 (3.54 s)"),
        ("0.1s", 24, BLOCKS, 17, "0.1s is 2.4 frames at 24 fps; the clip has 17 (0.708 s)"),
        ("4.2s", 24, STRIDE_4, 101, "4.2s is 100.8 frames at 24 fps; the clip has 101 (4.21 s)"),
    ],
)
def test_seconds_without_a_name(duration, fps, constraints, frames, note):
    clip = shape_of(constraints, resolution="144p", duration=duration, fps=fps)
    assert (clip.num_frames, clip.notes) == (frames, (note,))


def test_names_are_the_reference_counts_at_every_rate():
    assert shape_of(resolution="144p", duration="2s", fps=8).num_frames == 51
    assert shape_of(resolution="144p", duration="2.0s").num_frames == 51
    bare = shape_of(resolution="144p", duration="33")
    assert (bare.num_frames, bare.notes) == (33, ("length 33 is 33 frames; for seconds say 33s",))


def test_a_name_that_the_model_cannot_make_exactly_takes_the_nearest_and_says_so():
    clip = shape_of(STRIDE_4, resolution="144p", duration="2s")
    assert (clip.num_frames, clip.notes) == (49, ("2s is 51 frames; the clip has 49 (2.04 s)",))


@pytest.mark.parametrize(
    ("constraints", "shape", "message", "hint"),
    [
        (ANY, {"resolution": "720"}, "unknown resolution '720'", "did you mean '720p'?"),
        (ANY, {"resolution": "4K"}, "unknown resolution '4K'", "known: 144p, 256, 240p"),
        (ANY, {"resolution": "240p", "aspect_ratio": "16:10"}, "'16:10'", "the nearest is 8:5"),
        (ANY, {"resolution": "240p", "aspect_ratio": "10:17"}, "'10:17'", "the nearest is 9:16"),
        (ANY, {"resolution": "240p", "aspect_ratio": "wide"}, "'wide'", "width:height, e.g. 16:9 for landscape"),
        (ANY, {"resolution": "240p", "aspect_ratio": "0:0"}, "'0:0'", "width:height"),
        (ANY, {"resolution": "240p", "aspect_ratio": "7:5"}, "unknown aspect ratio '7:5'", "known: 8:3"),
        (ANY, {"resolution": "1024"}, "resolution 1024 has no aspect ratio 16:9", "1:1"),
        (ANY, {"resolution": "1024"}, "resolution 1024 has no aspect ratio 16:9", "keys (height / width): 0.25, 0.26"),
        (ANY, {"resolution": "240p", "aspect_ratio": "0.25"}, "resolution 240p has no aspect ratio 0.25", "16:9"),
        (ANY, {"size": "big"}, "size 'big' is not HEIGHTxWIDTH", "--size 480x848"),
        (ANY, {"size": "100x250"}, "size 100x250", "height 100: use 96 or 104\nwidth 250: use 248 or 256"),
        (ANY, {"size": "96x250"}, "multiples of 8", "width 250: use 248 or 256"),
        (ANY, {"size": "4x64"}, "multiples of 8", "height 4: use 8"),
        (ANY, {"size": "0x0"}, "size 0x0 (height x width) is too small", "8 to 8192"),
        (Constraints(spatial_multiple=16), {"size": "72x128"}, "multiples of 16", "height 72: use 64 or 80"),
        (Constraints(min_side=96), {"size": "64x128"}, "too small for this model", "96 to 4096 pixels"),
        (Constraints(max_side=1280, trained="144p"), {"resolution": "1080p"}, "too large", "144p"),
        (ANY, {}, "no frame size is given", "--res"),
        (ANY, {"size": "64x64"}, "no length is given", "--len"),
        (BLOCKS, {"size": "64x64", "frames": 50}, "50 frames do not fit", "use --frames 34 or 51"),
        (BLOCKS, {"size": "64x64", "frames": 1}, "makes 17, 34, 51, ... frames", "use --frames 17"),
        (BLOCKS, {"size": "64x64", "frames": 425}, "makes at most 408", "use --frames 408"),
        (STRIDE_4, {"size": "64x64", "frames": 100}, "100 frames do not fit", "use --frames 97 or 101"),
        (STRIDE_4, {"size": "64x64", "duration": "50"}, "50 frames do not fit", "use --frames 49 or 53"),
        (STRIDE_4, {"size": "64x64", "duration": "8s"}, "length 8s does not fit: 8s is 204 frames", "at most 101"),
        (ANY, {"size": "64x64", "duration": "0s"}, "length 0s does not fit", "at least one frame"),
        (ANY, {"size": "64x64", "duration": "4sec"}, "unknown length '4sec'", "did you mean '4s'?"),
        (ANY, {"size": "64x64", "duration": "2.5"}, "unknown length '2.5'", "or seconds, e.g. 3s"),
        (ANY, {"size": "64x64", "duration": "-1s"}, "unknown length '-1s'", "known: 1x"),
    ],
)
def test_what_cannot_be_made(constraints, shape, message, hint):
    with pytest.raises(UsageError) as caught:
        shape_of(constraints, **shape)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_exact_settings_win():
    clip = shape_of(resolution="720p", size="64x128", duration="4s", frames=3)
    assert (clip.height, clip.width, clip.num_frames) == (64, 128, 3)


TRAINED = Constraints(
    min_side=8,
    max_side=8192,
    trained_sizes=(
        TrainedSize("720p", 102),
        TrainedSize("240p", 408),
        TrainedSize("480p", 204),
        TrainedSize("360p", 408),
    ),
)


@pytest.mark.parametrize(
    "shape",
    [
        {"resolution": "720p", "duration": "4s"},
        {"resolution": "480p", "duration": "8s", "aspect_ratio": "1:1"},
        {"resolution": "240p", "duration": "16s", "aspect_ratio": "4:3"},
        {"resolution": "512", "duration": "2s", "aspect_ratio": "1:1"},
        {"resolution": "720p", "frames": 1},
        {"size": "720x1280", "frames": 102},
        {"size": "480x848", "duration": "8s"},
        {"size": "240x424", "frames": 400},
    ],
    ids=lambda shape: " ".join(map(str, shape.values())),
)
def test_a_trained_size_is_not_remarked_upon(shape):
    assert not [note for note in shape_of(TRAINED, **shape).notes if "trained" in note]


@pytest.mark.parametrize(
    ("shape", "note"),
    [
        (
            {"resolution": "1080p", "duration": "16s"},
            "1080p (1080x1920), 408 frames, is beyond what this model was trained on; "
            "nearest: 720p up to 4s, 360p up to 16s",
        ),
        (
            {"resolution": "720p", "duration": "8s"},
            "720p (720x1280), 204 frames, is beyond what this model was trained on; "
            "nearest: 720p up to 4s, 480p up to 8s",
        ),
        (
            {"resolution": "1080p", "duration": "2s"},
            "1080p (1080x1920), 51 frames, is beyond what this model was trained on; nearest: 720p up to 4s",
        ),
        (
            {"resolution": "360p", "duration": "32s"},
            "360p (360x640), 816 frames, is beyond what this model was trained on; nearest: 360p up to 16s",
        ),
        (
            {"resolution": "480p", "duration": "32s"},
            "480p (480x854), 816 frames, is beyond what this model was trained on; "
            "nearest: 480p up to 8s, 360p up to 16s",
        ),
        (
            {"resolution": "1080p", "frames": 1},
            "1080p (1080x1920), an image, is beyond what this model was trained on; nearest: 720p up to 4s",
        ),
        (
            {"size": "600x1000", "frames": 103},
            "600x1000, 103 frames, is beyond what this model was trained on; nearest: 720p up to 4s, 480p up to 8s",
        ),
        (
            {"size": "64x96", "frames": 17},
            "64x96, 17 frames, is smaller than what this model was trained on; nearest: 240p up to 16s",
        ),
    ],
)
def test_a_size_beyond_training_is_said_with_the_nearest(shape, note):
    assert [found for found in shape_of(TRAINED, **shape).notes if "trained" in found] == [note]


def test_lengths_without_a_name_are_said_in_frames():
    limits = Constraints(trained_sizes=(TrainedSize("240p", 65),))
    assert shape_of(limits, resolution="240p", duration="4s").notes[-1].endswith("nearest: 240p up to 65 frames")


def test_a_coarser_model_gets_a_smaller_file():
    clip = shape_of(Constraints(spatial_multiple=16), resolution="240p", duration="2s")
    assert (clip.height, clip.width) == (240, 416)


def test_the_true_ratio_of_the_mislabelled_key():
    assert shapes.table_size("720p", "25:12") == shapes.table_size("720p", "50:27") == Size(1386, 666)


def test_covering_names():
    names = ["144p", "240p", "720p"]
    assert shapes.covering_resolution(Size(144, 256), names) == "144p"
    assert shapes.covering_resolution(Size(144, 264), names) == "240p"
    assert shapes.covering_resolution(Size(1080, 1920), names) is None
    assert shapes.covering_duration(1, ["4s", "2s"]) == "2s"
    assert shapes.covering_duration(52, ["4s", "2s"]) == "4s"
    assert shapes.covering_duration(103, ["4s", "2s"]) is None


SMALL = Constraints(sampled_area=144 * 256)


@pytest.mark.parametrize(
    ("asked", "made", "written"),
    [
        ({"resolution": "720p"}, (144, 256), (720, 1280)),
        ({"resolution": "240p"}, (144, 256), (240, 424)),
        ({"resolution": "720p", "aspect_ratio": "9:16"}, (256, 144), (1280, 720)),
        ({"size": "600x600"}, (192, 192), (600, 600)),
    ],
)
def test_what_a_small_model_makes_is_enlarged(asked, made, written):
    clip = shape_of(SMALL, duration="2s", **asked)
    assert (clip.height, clip.width) == (clip.asked_height, clip.asked_width) == made
    assert clip.written == written
    assert any(f"makes {Size(*made)}, which is enlarged to {Size(*written)}" in note for note in clip.notes)


@pytest.mark.parametrize("size", ["240x424", "416x1280", "1272x608", "360x480", "600x1000"])
def test_what_is_enlarged_keeps_its_shape(size):
    """Within half a pixel of each side, where a model makes sides of any length."""
    clip = shape_of(replace(SMALL, spatial_multiple=1), duration="2s", size=size)
    height, width = clip.written
    assert (clip.height - 0.5) / (clip.width + 0.5) <= height / width <= (clip.height + 0.5) / (clip.width - 0.5)
    assert clip.height * clip.width == pytest.approx(144 * 256, rel=0.01)


def test_what_a_small_model_can_make_is_not_enlarged():
    clip = shape_of(SMALL, duration="2s", resolution="144p")
    assert clip.enlarged is None
    assert clip.written == (clip.height, clip.width) == (144, 256)
