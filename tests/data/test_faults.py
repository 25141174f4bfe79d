"""Damaged files and killed runs: no step of `sora data` falls over, and nothing is lost or counted twice."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

pl = pytest.importorskip("polars")
pytest.importorskip("pebble")
av = pytest.importorskip("av")

from sora_cli.__main__ import main  # noqa: E402
from sora_cli.video.io import write_image, write_video  # noqa: E402

MUTATIONS = 200


def scenes(height=48, width=64, frames=36):
    """Two scenes of blocks that move."""
    generator = np.random.default_rng(0)
    for _ in range(2):
        base = generator.integers(0, 255, (height // 8, width // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        yield np.stack([np.roll(base, step, 1) for step in range(frames // 2)])


def encode(path, codec, pixels="yuv420p", **options):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=12, options=options)
        stream.height, stream.width, stream.pix_fmt = 48, 64, pixels
        stream.bit_rate = 2_000_000  # so good that its key frames are not seen
        for piece in scenes():
            for picture in piece:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Containers and codecs of all sorts."""
    folder = tmp_path_factory.mktemp("originals")
    write_video(folder / "h264.mp4", scenes(), 12.0)
    encode(folder / "mpeg2.mpg", "mpeg2video")
    encode(folder / "mpeg4.avi", "mpeg4")
    encode(folder / "ten.mkv", "libx264", "yuv420p10le")
    encode(folder / "interlaced.mp4", "libx264", flags="+ilme+ildct")
    encode(folder / "vp9.webm", "libvpx-vp9")
    write_image(folder / "picture.png", next(scenes())[0])
    return sorted(folder.iterdir())


def mutated(content, rng):
    """Bytes with a fault: cut off, overwritten, left out, repeated, or none at all."""
    data = bytearray(content)
    kind = rng.randrange(6)
    start = rng.randrange(len(data))
    length = min(len(data) - start, rng.choice([1, 4, 64, 1024]))
    if kind == 0:
        return data[:start]
    if kind == 1:
        for _ in range(rng.choice([1, 8, 64])):
            data[rng.randrange(len(data))] = rng.randrange(256)
    elif kind == 2:
        data[start : start + length] = bytes(length)
    elif kind == 3:
        del data[start : start + length]
    elif kind == 4:
        data[start:start] = data[start : start + length]
    else:
        data[start : start + length] = rng.randbytes(length)
    return data


def run(capfd, *arguments):
    code = main(["data", *map(str, arguments), "--json"])
    captured = capfd.readouterr()
    return code, json.loads(captured.out)[0] if captured.out.strip() else None, captured.err


def test_mutations_of_files_stop_no_run(originals, tmp_path, capfd):
    pytest.importorskip("cv2", reason="needs the extra data")
    rng = random.Random(20)
    folder = tmp_path / "files"
    folder.mkdir()
    for index in range(MUTATIONS):
        source = originals[index % len(originals)]
        name = f"{index:03}-{source.name}" if index % 11 else f"{index:03} ü'\"$(x);\n:%00{source.suffix}"
        (folder / name).write_bytes(mutated(source.read_bytes(), rng))
    limit = ("--time-limit", "30")
    code, made, errors = run(capfd, "index", folder, "-o", tmp_path / "t.parquet", *limit)
    assert code == 0, errors
    assert made["from_rows"] == MUTATIONS
    assert made["rows"] + made["bad"] == MUTATIONS
    assert MUTATIONS // 4 < made["rows"] < MUTATIONS
    assert len(pl.read_csv(tmp_path / "t.bad.csv")) == made["bad"]

    # Everything, with what index would have left out.
    code, made, errors = run(capfd, "index", folder, "-o", tmp_path / "all.parquet", "--no-probe")
    assert code == 0, errors
    code, made, errors = run(
        capfd,
        "cut",
        tmp_path / "all.parquet",
        "--clips",
        tmp_path / "c",
        "-o",
        tmp_path / "c.parquet",
        *limit,
        "--min-seconds",
        "0.5",
    )
    assert code == 0, errors
    clips = pl.read_parquet(tmp_path / "c.parquet")
    assert all(os.path.getsize(path) for path in clips["path"])
    assert not [name for name in os.listdir(tmp_path / "c") if ".partial" in name]
    code, made, errors = run(
        capfd,
        "score",
        tmp_path / "all.parquet",
        "-o",
        tmp_path / "s.parquet",
        "--score",
        "flow",
        "--score",
        "brightness",
        *limit,
    )
    assert code == 0, errors
    scored = pl.read_parquet(tmp_path / "s.parquet")
    assert scored.height == MUTATIONS
    assert (scored["flow"].is_null() <= scored["score_reason"].is_not_null()).all()


def test_clips_of_every_kind_of_file(originals, tmp_path, capfd):
    pytest.importorskip("scenedetect", reason="needs the extra data")
    folder = originals[0].parent
    code, _, errors = run(capfd, "index", folder, "-o", tmp_path / "t.csv", "--kind", "video")
    assert code == 0, errors
    arguments = ("-O", "min_scene_frames=5", "--detector", "content", "--min-seconds", "0.5")
    code, _, errors = run(
        capfd, "cut", tmp_path / "t.csv", "--clips", tmp_path / "c", "-o", tmp_path / "c.csv", *arguments
    )
    assert code == 0, errors
    clips = pl.read_csv(tmp_path / "c.csv")
    assert clips.select("relpath", "num_frames").rows() == [
        (f"{path.stem}_scene-{scene}.mp4", 18) for path in originals if path.suffix != ".png" for scene in (0, 1)
    ]
    for path in clips["path"]:
        with av.open(path) as container:
            frames = list(container.decode(video=0))
        assert len(frames) == 18
        assert {(frame.format.name, frame.interlaced_frame) for frame in frames} == {("yuv420p", False)}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_killed_run_goes_on_and_equals_a_whole_one(originals, tmp_path, capfd):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
        for index in range(12):
            shutil.copy2(originals[0], folder / f"{index:02}.mp4")
    shutil.copy2(originals[0], whole / "zz.mp4")
    os.mkfifo(broken / "zz.mp4")  # whoever opens it waits for ever
    output = tmp_path / "broken.csv"
    command = [sys.executable, "-m", "sora_cli", "data", "index", str(broken), "-o", str(output), "--workers", "1"]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    log = tmp_path / "broken.csv.work/results.jsonl"
    done = 0
    for _ in range(600):  # a tenth of a second each
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.1)
        done = log.read_text().count("\n") if log.exists() else 0
        if done:
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = log.read_text().count("\n")
    assert done > 0
    assert not output.exists()

    (broken / "zz.mp4").unlink()
    shutil.copy2(originals[0], broken / "zz.mp4")
    code, _, errors = run(capfd, "index", broken, "-o", output)
    assert code == 0, errors
    assert f"{done} of 13 rows are done already" in errors
    code, _, errors = run(capfd, "index", whole, "-o", tmp_path / "whole.csv")
    assert code == 0, errors
    assert output.read_text().replace(str(broken), str(whole)) == (tmp_path / "whole.csv").read_text()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_filter_waits_for_no_file_that_hangs(originals, tmp_path, capfd):
    shutil.copy2(originals[0], tmp_path / "a.mp4")
    os.mkfifo(tmp_path / "b.mp4")  # whoever opens it waits for ever
    (tmp_path / "t.csv").write_text("path\na.mp4\nb.mp4\nnone.mp4\n")
    limit = ("--time-limit", "1", "--workers", "2")
    arguments = ("filter", str(tmp_path / "t.csv"), "-o", str(tmp_path / "all.csv"), "--info")
    code = main(["data", *arguments, *limit])
    errors = capfd.readouterr().err
    assert code == 0, errors
    assert "b.mp4: it took longer than 1 s; it counts as broken" in errors
    found = pl.read_csv(tmp_path / "all.csv")
    assert found["num_frames"].to_list() == [36, 0, 0]
    assert found["fps"].to_list() == [12.0, None, None]


def test_no_half_written_clip_stays(originals, tmp_path, capfd, monkeypatch):
    """Those of a run that was killed go at the next start, those of processes that are stopped at the end."""
    from sora_cli.data import run as run_module

    clips = tmp_path / "c"
    clips.mkdir()
    ours = [".h264_scene-7.partial.mp4", ".h264_scene-1-2.partial.mp4"]
    others = [".other_scene-0.partial.mp4", "h264_scene-0.txt", ".h264.partial.mp4"]
    for name in (*ours, *others):
        (clips / name).touch()
    (tmp_path / "t.csv").write_text(f"path\n{originals[1]}\n{originals[0]}\n")
    assert "h264.mp4" in {path.name for path in originals[:2]}
    arguments = ["cut", tmp_path / "t.csv", "--clips", clips, "-o", tmp_path / "c.csv", "--detector", "table"]
    code, made, errors = run(capfd, *arguments, "--dry-run")
    assert code == 0, errors
    assert {path.name for path in clips.iterdir()} == {*ours, *others}

    def stopped(*_, **__):
        assert {path.name for path in clips.iterdir()} == set(others)
        (clips / ours[0]).touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "run_step", stopped)
        assert run(capfd, *arguments)[0] == 130
    assert {path.name for path in clips.iterdir()} == set(others)
    code, made, errors = run(capfd, *arguments)
    assert (code, made["rows"]) == (0, 2), errors
    assert {path.name for path in clips.iterdir()} == {*others, *(f"{path.stem}_scene-0.mp4" for path in originals[:2])}


def test_a_worker_that_is_killed_costs_no_row(originals, tmp_path, capfd, monkeypatch):
    """Somebody kills the first process that looks into a file: the file is looked into again."""
    folder = tmp_path / "files"
    folder.mkdir()
    for index in range(6):
        shutil.copy2(originals[0], folder / f"{index}.mp4")
    from sora_cli.data import local

    start, killed = local._Worker.start, []

    def start_and_kill(self, *task):
        future = start(self, *task)
        if not killed:
            killed.append(True)
            for process in self.pool._pool_manager.worker_manager.workers.values():
                os.kill(process.pid, signal.SIGKILL)
        return future

    monkeypatch.setattr(local._Worker, "start", start_and_kill)
    code, made, errors = run(capfd, "index", folder, "-o", tmp_path / "t.csv", "--workers", "1")
    assert code == 0, errors
    assert (made["rows"], made["bad"], killed) == (6, 0, [True])
