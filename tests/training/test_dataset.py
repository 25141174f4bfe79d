"""Decoding and batches: the frames asked for, upright, and bad files replaced."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from sora_cli.errors import SoraError
from sora_cli.text.scores import Scores
from sora_cli.training.buckets import BucketTable
from sora_cli.training.captions import CaptionOptions, draw_caption, with_motion
from sora_cli.training.clip_reader import BROKEN, MISSING, SHORT, BadClipError, read_clip, read_image
from sora_cli.training.dataset import ClipDataset, ClipOptions, Failure, Job, KeptWorkers, load_batches
from sora_cli.training.plan import EpochPlan
from sora_cli.training.table import ClipRow, open_table
from sora_cli.video.io import write_video


def numbered_frames(count: int, height: int = 32, width: int = 48) -> np.ndarray:
    """Grey frames whose brightness tells their number."""
    levels = np.linspace(20, 235, count).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (count, height, width, 3)).copy()


def number_of(frame: torch.Tensor, count: int) -> int:
    return round((float(frame.float().mean()) - 20) / 215 * (count - 1))


@pytest.mark.parametrize("wanted", [[0], [3, 4, 5], [0, 10, 39], [30, 39], [39], [2, 2, 3]])
def test_frames_by_number(tmp_path: Path, wanted: list[int]):
    write_video(tmp_path / "v.mp4", [numbered_frames(40)], 25)
    clip = read_clip(tmp_path / "v.mp4", len(wanted), lambda total: wanted)
    assert clip.frames.shape == (len(wanted), 3, 32, 48)
    assert [number_of(frame, 40) for frame in clip.frames] == wanted
    assert clip.fps == 25


def test_only_the_window_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With B frames and a key frame every 10 frames, which is where decoding starts."""
    import av

    from sora_cli.training import clip_reader

    with av.open(str(tmp_path / "v.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"g": "10", "bf": "3", "crf": "4"})
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for picture in numbered_frames(40):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    turned: list[int] = []
    original = clip_reader._upright
    monkeypatch.setattr(clip_reader, "_upright", lambda frame: turned.append(frame.pts) or original(frame))
    decoded: list[int] = []
    decode = clip_reader._PyAvVideo._decoded

    def counting(self, first):
        for number, frame in decode(self, first):
            decoded.append(number)
            yield number, frame

    monkeypatch.setattr(clip_reader._PyAvVideo, "_decoded", counting)
    clip = read_clip(tmp_path / "v.mkv", 3, lambda total: [23, 25, 27])
    assert [number_of(frame, 40) for frame in clip.frames] == [23, 25, 27]
    assert len(turned) == 3
    assert min(decoded) >= 18
    assert max(decoded) <= 30


def test_opening_a_file_does_not_hold_it():
    import weakref

    from sora_cli.training import clip_reader

    class Packet:
        size, is_discard, is_keyframe = 1, False, True

        def __init__(self, pts: int) -> None:
            self.pts = pts

    most, alive = 0, weakref.WeakSet()

    def packets():
        nonlocal most
        for pts in range(50):
            packet = Packet(pts)
            alive.add(packet)
            most = max(most, len(alive))
            yield packet

    stream = SimpleNamespace(codec_context=SimpleNamespace(), average_rate=8, disposition=0)
    container = SimpleNamespace(streams=SimpleNamespace(video=[stream]), demux=lambda _: packets())
    assert clip_reader._PyAvVideo(container).num_frames == 50
    assert most <= 2


def test_decord_gives_the_same_frames(tmp_path: Path):
    pytest.importorskip("decord", reason="the extra decord")
    write_video(tmp_path / "v.mp4", [numbered_frames(40, 64, 128)], 25)  # decord fails at some narrow widths
    wanted = [0, 7, 8, 39]
    clip = read_clip(tmp_path / "v.mp4", 4, lambda total: wanted, reader="decord")
    assert [number_of(frame, 40) for frame in clip.frames] == wanted
    assert clip.fps == 25
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    with pytest.raises(BadClipError) as failed:
        read_clip(tmp_path / "bad.mp4", 4, lambda total: wanted, reader="decord")
    assert failed.value.reason == BROKEN


def test_rotation_is_applied(tmp_path: Path):
    import av

    picture = np.zeros((32, 48, 3), np.uint8)
    picture[:, :24] = 255  # the left half is white
    with av.open(str(tmp_path / "v.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        if not hasattr(stream, "set_display_rotation"):
            pytest.skip("this PyAV cannot write rotated files")
        stream.set_display_rotation(90)
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    with av.open(str(tmp_path / "v.mp4")) as container:
        rotation = next(container.decode(video=0)).rotation
    assert abs(rotation) == 90
    frame = read_clip(tmp_path / "v.mp4", 1, lambda total: [1]).frames[0].float()
    assert frame.shape == (3, 48, 32)
    bottom_is_white = frame[:, 30:].mean() > 200
    assert bottom_is_white == (rotation == 90), "a counter-clockwise turn brings the left side down"


def test_what_cannot_be_read(tmp_path: Path):
    write_video(tmp_path / "v.mp4", [numbered_frames(12)], 24)
    whole = (tmp_path / "v.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "noise.jpg").write_bytes(bytes(range(256)))

    def none(total):
        raise ValueError("5 frames asked for")

    for name, reason, options in (
        ("absent.mp4", MISSING, {}),
        ("empty.mp4", BROKEN, {}),
        ("cut.mp4", None, {}),
        ("v.mp4", SHORT, {"least_frames": 13}),
        ("v.mp4", SHORT, {"choose": none}),
    ):
        choose = options.pop("choose", lambda total: [0, 11])
        with pytest.raises(BadClipError) as failed:
            read_clip(tmp_path / name, 2, choose, **options)
        assert reason in (None, failed.value.reason)
    for name, reason in (("noise.jpg", BROKEN), ("absent.png", MISSING)):
        with pytest.raises(BadClipError) as failed:
            read_image(tmp_path / name)
        assert failed.value.reason == reason


def test_pictures_are_turned_upright_and_may_be_cut_off(tmp_path: Path):
    generator = np.random.default_rng(0)
    picture = Image.fromarray(generator.integers(0, 255, (64, 96, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "p.jpg", exif=exif)
    assert read_image(tmp_path / "p.jpg").shape == (1, 3, 96, 64)
    content = (tmp_path / "p.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) * 2 // 3])
    assert read_image(tmp_path / "cut.jpg").shape == (1, 3, 96, 64)


# -- batches -------------------------------------------------------------------------------------------------------

BUCKETS = BucketTable({"144p": {5: [1.0, 3], 1: [1.0, 2]}})


@pytest.fixture
def table(tmp_path: Path):
    rows = []
    for index in range(7):
        write_video(tmp_path / f"{index}.mp4", [numbered_frames(20 + index, 144, 256)], 29.97)
        rows.append((f"{index}.mp4", f"clip {index}", 20 + index, 144, 256, 5.25, 10.0, "pan_left"))
    for index in range(4):
        Image.new("RGB", (256, 144), (index * 20, 0, 0)).save(tmp_path / f"{index}.png")
        rows.append((f"{index}.png", f"picture {index}", 1, 144, 256, None, None, None))
    columns = ("path", "text", "num_frames", "height", "width", "aes", "flow", "cmotion")
    pl.DataFrame(rows, columns, orient="row").write_csv(tmp_path / "t.csv")
    return open_table([str(tmp_path / "t.csv")], cache=tmp_path / "cache" / "t.arrow")


def plan_of(table, epoch=0):
    sizes = [table.numbers(name) for name in ("num_frames", "height", "width")]
    return EpochPlan(BUCKETS, BUCKETS.assign(*sizes, seed=1, epoch=epoch), seed=1, epoch=epoch)


def batches_of(table, epoch=0, workers=0, kept=None, **options):
    plan = plan_of(table, epoch)
    options = ClipOptions(seed=1, **options)
    return list(load_batches(table, plan, range(len(plan)), options, epoch, num_workers=workers, kept=kept))


def test_batches(table):
    batches = batches_of(table)
    assert (
        sorted(tuple(batch.pixels.shape) for batch in batches) == [(2, 3, 1, 144, 256)] * 2 + [(3, 3, 5, 144, 256)] * 2
    )
    for batch in batches:
        assert not batch.bad
        assert -1 <= float(batch.pixels.min()) <= float(batch.pixels.max()) <= 1
        is_image = batch.pixels.shape[2] == 1
        assert batch.texts == [f"{'picture' if is_image else 'clip'} {row - 7 * is_image}" for row in batch.rows]
        assert batch.fps.tolist() == [120.0 if is_image else 29.0] * len(batch.rows)
        sizes = batch.sizes()
        assert sizes["num_frames"].tolist() == [batch.pixels.shape[2]] * len(batch.rows)
        assert sizes["ar"][0] == 144 / 256
        assert batch.sizes("w_over_h")["ar"][0] == pytest.approx(256 / 144)


def test_workers_change_nothing(table):
    alone, helped = batches_of(table), batches_of(table, workers=2)
    for one, other in zip(alone, helped, strict=True):
        assert one.rows == other.rows
        assert torch.equal(one.pixels, other.pixels)


def test_kept_workers_go_on_with_other_epochs(table):
    kept = KeptWorkers()
    try:
        helped = [batches_of(table, epoch, workers=2, kept=kept) for epoch in range(3)]
        assert kept.loader is not None
        workers = kept.loader._iterator._workers
        assert all(worker.is_alive() for worker in workers)
    finally:
        kept.close()
    assert not any(worker.is_alive() for worker in workers)
    for epoch, batches in enumerate(helped):
        for one, other in zip(batches_of(table, epoch), batches, strict=True):
            assert one.rows == other.rows
            assert torch.equal(one.pixels, other.pixels)


def test_windows_differ_between_epochs_and_clips(table):
    starts = {}
    for epoch in range(3):
        for batch in batches_of(table, epoch):
            for row, clip in zip(batch.rows, batch.pixels, strict=True):
                starts.setdefault(row, set()).add(round(float(clip[0, 0].mean()), 3))
    assert sum(len(each) > 1 for row, each in starts.items() if row < 7) >= 5


def test_rates_that_the_model_is_told(table):
    def rate(**options):
        return {float(batch.fps[0]) for batch in batches_of(table, **options)} - {120.0}

    assert [round(each, 3) for each in rate(fps_condition="source")] == [29.97]
    assert rate(fps_condition="nearest") == {30.0}
    assert rate(frame_interval=3) == {9.0}
    # A window of 50 frames, and clips of 20 to 26: theirs are closer together.
    batches = batches_of(table, frame_interval=10)
    squeezed = {row: float(fps) for one in batches for row, fps in zip(one.rows, one.fps, strict=True)}
    assert {row: fps for row, fps in squeezed.items() if row < 7} == {
        row: 29.97 // ((20 + row - 1) / 4) for row in squeezed if row < 7
    }


def test_a_picture_is_no_clip(table, tmp_path: Path):
    """A table that says a picture has frames is as wrong as one that says so of a shorter clip."""
    dataset = ClipDataset(tmp_path, ClipOptions(seed=1))
    for said, reason in ((20, SHORT), (1, None), (None, None)):
        clips = [ClipRow("0.png", ("x",), Scores(), said), ClipRow("0.mp4", ("y",), Scores(), 20)]
        batch = dataset[Job(0, 0, (5, 144, 256), [7], clips[:1], [0], clips[1:])]
        assert [bad.reason for bad in batch.bad] == ([] if reason is None else [reason])
        assert batch.rows == ([7] if reason is None else [0])


def test_scores_in_captions(table):
    texts = [text for batch in batches_of(table, score_captions=True, score_drop=0.0) for text in batch.texts]
    assert "clip 3 aesthetic score: 5.2. motion score: 10.0. camera motion: pan left." in texts
    assert "picture 1" in texts
    dropped = [text for batch in batches_of(table, score_captions=True, score_drop=0.5) for text in batch.texts]
    counts = [text.count(":") for text in dropped if text.startswith("clip")]
    assert len(set(counts)) > 1


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ("pan_left+zoom in", "pan left, zoom in"),
        ("static", "static"),
        ("Undetermined", None),
        ("pan_left+unknown", None),
        ("", None),
    ],
)
def test_only_known_motions_of_the_camera_are_told(labels, words):
    clip = ClipRow("x.mp4", ("a cat.",), Scores(camera=labels))
    drawn = draw_caption(0, clip, 0, CaptionOptions(1, score_captions=True, score_drop=0.0))
    assert drawn == ("a cat." if words is None else f"a cat. camera motion: {words}.")
    assert with_motion("a cat.", clip) == ("a cat." if words is None else f"camera motion: {words}. a cat.")


def test_one_of_several_captions_is_drawn_for_every_use():
    clip = ClipRow("x.mp4", ("a", "b", "c"), Scores(camera="pan_left"))
    options = CaptionOptions(seed=1)
    drawn = {(row, epoch): draw_caption(row, clip, epoch, options) for row in range(40) for epoch in range(40)}
    assert all(draw_caption(row, clip, epoch, options) == text for (row, epoch), text in drawn.items())
    counts = [list(drawn.values()).count(text) for text in clip.texts]
    assert sum(counts) == 1600
    assert min(counts) > 450
    for fixed in (0, 1):
        assert len({text for key, text in drawn.items() if key[fixed] == 3}) == 3
    assert {draw_caption(row, clip, 0, CaptionOptions(2)) != drawn[row, 0] for row in range(40)} == {True, False}
    told = with_motion("a", clip)
    assert told == "camera motion: pan left. a"
    assert with_motion("a", ClipRow("x.mp4", ("a",), Scores())) == "a"
    moving = ClipRow("x.mp4", ("a",), Scores(aes=5.0, motion=5.17, camera="static"))
    assert with_motion("a", moving) == "measured motion score: 5.17. camera motion: static. a"
    assert draw_caption(0, ClipRow("x.mp4", (), Scores()), 0, options) == ""


def test_bad_files_are_replaced_by_others_of_their_bucket(table):
    (table.root / "2.mp4").write_bytes(b"no video")
    (table.root / "5.mp4").unlink()
    good = batches_of(table)
    assert [tuple(batch.pixels.shape) for batch in good] == [tuple(batch.pixels.shape) for batch in batches_of(table)]
    bad = [one for batch in good for one in batch.bad]
    assert {(one.path, one.reason) for one in bad} <= {("2.mp4", BROKEN), ("5.mp4", MISSING)}
    assert len(bad) >= 1
    used = [row for batch in good for row in batch.rows]
    assert not {2, 5} & set(used)
    again = batches_of(table, workers=1)
    assert [batch.rows for batch in again] == [batch.rows for batch in good]


def test_a_bucket_without_a_readable_clip_stops_the_run(table):
    for index in range(7):
        (table.root / f"{index}.mp4").unlink()
    for workers in (0, 1):
        with pytest.raises(SoraError, match=r"of one bucket \d+ clips? cannot be read") as failed:
            batches_of(table, workers=workers)
        assert "Traceback" not in str(failed.value)
        assert "the file is missing" in str(failed.value.hint)
    one, other = table.rows(np.arange(2))
    job = Job(0, 0, (1, 144, 256), [0], [one], [1, 0], [other, one])
    failure = ClipDataset(table.root, ClipOptions(seed=1))[job]
    assert isinstance(failure, Failure)
    assert failure.message == "of one bucket 2 clips cannot be read", "a row that fills up is counted once"
