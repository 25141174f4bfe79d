"""`sora eval metrics` and `sora eval vae --reference`: known values, pairs, sets, reports, what cannot be measured."""

from __future__ import annotations

import json
import math
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hostile_measurer
import numpy as np
import pytest
import torch
from clip_tiny import make_tiny_whole_clip
from known_clips import lossless, noise

from sora_cli.evaluation import metrics, metrics_work
from sora_cli.evaluation.measures import Measure, Values, mean, pooled_mean
from sora_cli.plugin.manager import get_plugins
from sora_cli.video.io import write_video

#: PSNR of a difference of 10 everywhere.
OFFSET_PSNR = 20 * math.log10(255 / 10)


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """As without pebble: a process for each command would take longer than the command."""
    monkeypatch.setattr(metrics_work, "find_spec", lambda name: None)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[str, str]:
    """Reconstructions and originals: a the same, b 10 brighter, c of another size, d without an original."""
    decoded, originals = tmp_path / "decoded", tmp_path / "originals"
    for place, name in enumerate("abc"):
        lossless(originals / f"{name}.mkv", noise(seed=place))
    lossless(decoded / "a.mkv", noise(seed=0))
    lossless(decoded / "b.mkv", noise(seed=1) + 10)
    lossless(decoded / "c.mkv", noise(size=(48, 48), seed=2))
    lossless(decoded / "d.mkv", noise(seed=3))
    return str(decoded), str(originals)


def measured(sora: Any, *arguments: str, code: int = 0) -> dict[str, Any]:
    done = sora("eval", "metrics", *arguments, "--json", "--device", "cpu")
    assert done.code == code, done.err
    return json.loads(done.out)


def test_known_values_and_what_cannot_be_measured(sora, folders) -> None:
    decoded, originals = folders
    report = measured(
        sora, decoded, "--reference", originals, "--metric", "psnr", "--metric", "ssim", "--metric", "flicker"
    )
    a, b, c, d = report["videos"]
    assert a["values"]["psnr"] == 100
    assert a["values"]["ssim"] == pytest.approx(1)
    assert (a["frames"], a["fps"], a["size"], a["reason"]) == (4, 8.0, "32x48", None)
    assert b["values"]["psnr"] == pytest.approx(OFFSET_PSNR, abs=1e-4)
    still = 1 - np.abs(np.diff(noise(seed=1).astype(float), axis=0)).mean() / 255
    assert b["values"]["flicker"] == pytest.approx(still, abs=1e-6)
    assert "c.mkv is 48x48" in c["reason"]
    assert d["reason"] == "no original has its name"
    assert report["mean"]["psnr"] == pytest.approx((100 + OFFSET_PSNR) / 2, abs=1e-4)
    assert report["measured"] == 2
    table = sora("eval", "metrics", decoded, "--reference", originals)
    assert "mean of 2" in table.out
    assert "no original has its name" in table.err
    assert "--fit brings it to the size of the original" in table.err


def test_fitted_and_by_position(sora, folders, tmp_path: Path) -> None:
    decoded, originals = folders
    report = measured(sora, f"{decoded}/c.mkv", "--reference", originals, "--fit")
    assert report["videos"][0]["size"] == "32x48"
    one = measured(sora, f"{decoded}/a.mkv", f"{decoded}/b.mkv", "--reference", f"{originals}/a.mkv")
    assert [row["values"]["psnr"] == 100 for row in one["videos"]] == [True, False]
    failed = sora("eval", "metrics", decoded, "--reference", originals, "--by-position")
    assert (failed.code, "there are 4 videos and 3 originals" in failed.err) == (2, True)
    (Path(decoded) / "d.mkv").unlink()
    by_position = measured(sora, decoded, "--reference", originals, "--by-position", "--subset", "2")
    assert len(by_position["videos"]) == 2


def test_the_report(sora, folders, tmp_path: Path) -> None:
    decoded, originals = folders
    settings = {
        "settings_hash": "x",
        "seed": 7,
        "prompt": "a fox",
        "text": "a fox aesthetic score: 6.5.",
        "model": {"name": "nano"},
    }
    write_video(Path(decoded) / "e.mp4", [noise()], 8.0, settings)
    file = tmp_path / "report.json"
    arguments = ("eval", "metrics", decoded, "--reference", originals, "--subset", "9", "-o", str(file))
    assert sora(*arguments).code == 0
    report = json.loads(file.read_text())
    assert report["made"]["clips"][f"{decoded}/e.mp4"]["sent"] == ["a fox aesthetic score: 6.5."]
    assert f"{decoded}/a.mkv" in report["made"]["unknown"]
    assert report["measures"]["psnr"] == {"unit": "dB", "higher_is_better": True, "subject": "pair"}
    assert report["options"]["pairs"] == "by name"
    again = sora(*arguments)
    assert (again.code, "report.json is there already" in again.err) == (2, True)
    assert sora(*arguments, "--overwrite").code == 0
    for output, message in ((f"{decoded}/a.txt", "ends in .json"), ("there.json", "")):
        assert message in sora("eval", "metrics", decoded, "-o", output).err


def test_nothing_that_can_be_measured_fails(sora, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.mp4").write_bytes(b"no video")
    for arguments in (("--metric", "flicker"), ("--metric", "sharpness")):
        report = measured(sora, str(tmp_path / "bad"), *arguments, code=1)
        assert report["videos"][0]["reason"]
        assert report["mean"] == dict.fromkeys(report["mean"])
    video = tmp_path / "bad" / "a.mp4"
    failed = sora("eval", "metrics", str(tmp_path / "bad"))
    assert "of 1 video none could be measured" in failed.err
    assert (failed.out, failed.err.count(str(video)), failed.err.count("cannot be decoded")) == ("", 1, 1)
    assert "\n  give a video or a picture that can be played\n" in failed.err


def test_videos_alone(sora, folders) -> None:
    decoded, _ = folders
    report = measured(sora, decoded, "--metric", "quality", "--metric", "flicker", "--metric", "borders")
    assert set(report["mean"]) == {"flicker", "quality", "contrast", "colourfulness", "border"}
    assert set(report["videos"][0]["values"]) == {*report["mean"], "crop"}
    default = set(measured(sora, decoded)["mean"])
    assert default == {"flicker", "sharpness", *(["motion"] if find_spec("cv2") else [])}
    quiet = sora("eval", "metrics", decoded, "--metric", "flicker", "-q")
    assert quiet.out.startswith("flicker  0.")


def test_what_is_asked_for_wrongly(sora, folders) -> None:
    decoded, originals = folders
    for arguments, message in (
        (("--metric", "psnr"), "psnr compares videos with originals"),
        (("--metric", "fid"), "fid compares videos with originals"),
        (("--metric", "sharpnes"), "did you mean 'sharpness'?"),
        (("--metric", "flicker", "--metric-weights", "clip=x"), "no measure looks with clip"),
        (("--fit",), "--fit and --by-position are about originals"),
        (("--crop", "16"), "--crop cuts out of frames of one size"),
        (("--prompts", f"{decoded}/none.csv"), "none.csv"),
        (("--reference", f"{originals}/none"), "there is no file or folder"),
    ):
        failed = sora("eval", "metrics", decoded, *arguments)
        assert (failed.code, message in failed.err) == (2, True), failed.err
    missing = sora("eval", "metrics", decoded, "--metric", "match")
    assert (missing.code, "clip-vit-large-patch14" in missing.err) == (3, True)
    assert "give your own with --metric-weights clip=FILE" in missing.err


def test_prompts_come_from_videos_or_a_table(sora, tmp_path: Path) -> None:
    make_tiny_whole_clip(tmp_path / "clip")
    settings = {"settings_hash": "x", "prompt": "a fox", "model": {"name": "nano"}}
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "a.mp4", [noise()], 8.0, settings)
    lossless(tmp_path / "videos" / "b.mkv", noise(seed=1))
    arguments = (str(tmp_path / "videos"), "--metric", "match", "--metric-weights", f"clip={tmp_path / 'clip'}")
    stored = measured(sora, *arguments)
    a, b = stored["videos"]
    assert a["values"]["match"] is not None
    assert b["reason"] == "match: it has no caption"
    (tmp_path / "prompts.csv").write_text("path,text\nvideos/a.mp4,snow\nelsewhere/b.mkv,snow\n")
    given = measured(sora, *arguments, "--prompts", str(tmp_path / "prompts.csv"))
    assert given["videos"][0]["values"]["match"] != a["values"]["match"]
    assert given["videos"][1]["values"]["match"] is not None
    assert set(given["weights"]) == {"match"}
    (tmp_path / "prompts.csv").write_text("path,text\nx/b.mkv,snow\ny/b.mkv,rain\n")
    ambiguous = measured(sora, *arguments, "--prompts", str(tmp_path / "prompts.csv"))
    assert ambiguous["videos"][1]["reason"] == "match: it has no caption"


def test_sets_of_videos(sora, folders, tmp_path: Path) -> None:
    make_tiny_whole_clip(tmp_path / "clip")
    decoded, originals = folders
    weights = ("--metric-weights", f"clip={tmp_path / 'clip'}", "--metric-weights", f"clip336={tmp_path / 'clip'}")
    wanted = ("--metric", "clip-fd", "--metric", "cmmd")
    same = measured(sora, originals, "--reference", originals, *wanted, *weights)
    assert same["sets"]["clip-fd"]["value"] == pytest.approx(0, abs=1e-4)
    assert same["sets"]["cmmd"]["value"] == pytest.approx(0, abs=1e-4)
    done = sora("eval", "metrics", decoded, "--reference", originals, *wanted, *weights)
    assert done.code == 0, done.err
    # Four frames of each; sizes and names do not matter for sets.
    assert "clip-fd of 12 and 16 features says little: it wants 769 of each set" in done.err
    assert "no original" not in done.err
    few = sora(
        "eval", "metrics", f"{decoded}/a.mkv", "--reference", originals, "--frames", "1", *wanted[:2], *weights[:2]
    )
    assert (few.code, "a covariance needs two" in few.err) == (1, True)


# -- what was measured is kept, and no video stops the others ---------------------------------------------------------


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are measured, as they come; Ctrl-C is pressed at those called stop.mkv."""
    seen: list[str] = []
    measure = metrics_work._Measurer.measure

    def counting(self: Any, row: Any) -> Any:
        name = Path(row["path"]).name
        if name == "stop.mkv":
            raise KeyboardInterrupt
        seen.append(name)
        return measure(self, row)

    monkeypatch.setattr(metrics_work._Measurer, "measure", counting)
    return seen


def test_an_interrupted_run_goes_on(sora, folders, counted, tmp_path: Path) -> None:
    make_tiny_whole_clip(tmp_path / "clip")
    decoded, originals = folders
    whole = tmp_path / "whole.json"
    arguments = (
        *("eval", "metrics", decoded, "--reference", originals, "--device", "cpu", "--reference-aggregate"),
        *("--metric", "psnr", "--metric", "clip-fd", "--metric-weights", f"clip={tmp_path / 'clip'}"),
    )
    assert sora(*arguments, "-o", str(whole)).code == 0
    assert not (tmp_path / "whole.json.work").exists()
    expected = json.loads(whole.read_text())
    (Path(decoded) / "d.mkv").rename(Path(decoded) / "stop.mkv")
    output, work = tmp_path / "report.json", tmp_path / "report.json.work"
    counted.clear()
    stopped = sora(*arguments, "-o", str(output))
    assert (stopped.code, output.exists(), counted) == (130, False, ["a.mkv", "b.mkv", "c.mkv"])
    assert "3 of 7 videos are done; the same command goes on" in stopped.err
    other = sora(*arguments, "--frames", "2", "-o", str(output))
    assert (other.code, "unfinished run with other settings (look)" in other.err) == (2, True), other.err
    assert f"remove {work}" in other.err
    (Path(decoded) / "stop.mkv").rename(Path(decoded) / "d.mkv")
    lossless(Path(decoded) / "b.mkv", noise(seed=1) + 20)  # changed since
    counted.clear()
    done = sora(*arguments, "-o", str(output))
    assert (done.code, counted) == (0, ["b.mkv", "d.mkv", "a.mkv", "b.mkv", "c.mkv"]), done.err
    assert "2 of 7 videos are done already" in done.err
    report = json.loads(output.read_text())
    assert report["videos"][1]["values"]["psnr"] == pytest.approx(20 * math.log10(255 / 20), abs=1e-4)
    for made in (report, expected):
        del made["videos"][1]["values"], made["sets"]["clip-fd"]["value"], made["mean"], made["reference_mean"]
    assert report == expected
    assert not work.exists()


def test_nothing_is_kept_without_a_report(sora, folders, counted, tmp_path: Path) -> None:
    decoded, _ = folders
    (Path(decoded) / "d.mkv").rename(Path(decoded) / "stop.mkv")
    stopped = sora("eval", "metrics", decoded, "--metric", "flicker")
    assert (stopped.code, "3 of 4 videos are done\n" in stopped.err) == (130, True), stopped.err
    assert sorted(path.name for path in Path.cwd().iterdir()) == []


def test_a_command_that_cannot_begin_leaves_nothing(sora, folders, tmp_path: Path) -> None:
    decoded, originals = folders
    (tmp_path / "wrong.pth").write_bytes(b"no weights")
    output = tmp_path / "report.json"
    failed = sora(
        *("eval", "metrics", decoded, "--reference", originals, "--metric", "lpips", "-o", str(output)),
        *("--metric-weights", f"alexnet={tmp_path / 'wrong.pth'}"),
    )
    assert (failed.code != 0, list(tmp_path.glob("report*"))) == (True, [])


def test_a_video_that_hangs_or_ends_its_decoder(sora, folders, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("pebble")
    monkeypatch.setattr(metrics_work, "find_spec", find_spec)
    monkeypatch.setattr(metrics, "make_measurer", hostile_measurer.make_measurer)
    places = [str(Path(__file__).parent), *filter(None, sys.path)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(places))
    decoded, _ = folders
    (Path(decoded) / "b.mkv").rename(Path(decoded) / "hangs.mkv")
    (Path(decoded) / "c.mkv").rename(Path(decoded) / "crashes.mkv")
    output = tmp_path / "report.json"
    arguments = ("eval", "metrics", decoded, "--metric", "flicker", "-o", str(output))
    done = sora(*arguments, "--time-limit", "2")
    assert done.code == 0, done.err
    assert "the same command with --overwrite tries those again that were stopped, no others" in done.err
    rows = {Path(row["video"]).stem: row for row in json.loads(output.read_text())["videos"]}
    assert rows["hangs"]["reason"] == "it took longer than 2 s"
    assert rows["crashes"]["reason"] == "the process ended (exit code 7)"
    assert all(rows[name]["values"]["flicker"] for name in "ad")
    monkeypatch.setattr(metrics_work, "find_spec", lambda name: None)
    monkeypatch.setattr(metrics, "make_measurer", metrics_work.make_measurer)
    again = sora(*arguments, "--overwrite")
    assert "2 of 4 videos are done already" in again.err
    assert json.loads(output.read_text())["measured"] == 4
    assert not (tmp_path / "report.json.work").exists()


# -- the driver of Open-Sora's metric tool ---------------------------------------------------------------------------


def test_two_folders(sora, folders) -> None:
    decoded, originals = folders
    fitted = ("--resolution", "24", "--crop", "20", "--frames", "3", "--metric", "psnr", "--json")
    done = sora("eval", "vae", decoded, "--reference", originals, *fitted, "--reference-aggregate", "--device", "cpu")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    values = [row["values"].get("psnr") for row in report["videos"]]
    assert [row["size"] for row in report["videos"]] == ["20x20"] * 3 + [None]
    assert report["mean"]["psnr"] == pytest.approx(mean(values))
    # Batches of two: a and b, then c alone, whose three numbers count as much as those of both.
    assert report["reference_mean"]["psnr"] == pytest.approx(((values[0] + values[1]) / 2 + values[2]) / 2)
    assert report["options"]["batch_size"] == 2


def test_the_first_frames_are_measured_either_way(sora, folders, tmp_path: Path) -> None:
    """Of 4 frames 3: also beside originals those are the first, where no --sample-rate is given."""
    decoded, originals = folders
    flat = noise(seed=1)
    flat[3] += 100
    lossless(Path(decoded) / "b.mkv", flat)
    arguments = (f"{decoded}/b.mkv", "--metric", "psnr", "--device", "cpu", "--json", "--frames", "3")
    files = json.loads(sora("eval", "vae", *arguments, "--reference", originals).out)
    assert (files["videos"][0]["values"]["psnr"], files["videos"][0]["frames"]) == (100, 3)
    coded = sora("eval", "vae", *arguments, "--vae", "nano")
    assert coded.code == 0, coded.err
    assert json.loads(coded.out)[0]["frames"] == 3


def test_options_of_the_other_way(sora, folders) -> None:
    decoded, originals = folders
    for arguments, message in (
        (("--reference", originals, "--vae", "nano"), "--vae is for clips that are coded"),
        (("--reference", originals, "--low-memory"), "--low-memory is for clips that are coded"),
        (("--crop", "20"), "--crop is for files beside originals"),
        (("-o", "x.json"), "is for files beside originals"),
    ):
        failed = sora("eval", "vae", f"{decoded}/a.mkv", *arguments)
        assert (failed.code, message in failed.err) == (2, True), failed.err


def test_clips_are_coded_without_a_reference(sora, tmp_path: Path) -> None:
    clip = lossless(tmp_path / "a.mkv", noise(2))
    arguments = (str(clip), "--vae", "nano", "--device", "cpu", "--json")
    ours, theirs = sora("eval", "vae", *arguments), sora("vae", "eval", *arguments)
    assert (ours.code, ours.out) == (0, theirs.out)
    refused = sora("eval", "vae", *arguments, "--metric", "fid")
    assert refused.code in (2, 3)


# -- means -----------------------------------------------------------------------------------------------------------


def test_the_mean_of_batches() -> None:
    videos = [torch.tensor(values) for values in ([1.0, 2.0], [3.0, 4.0], [10.0, 20.0])]
    assert pooled_mean(videos, 1) == pytest.approx((3 + 7 + 30) / 6)
    assert pooled_mean(videos, 2) == pytest.approx((2 + 3 + 10 + 20) / 4)
    with pytest.raises(ValueError, match=r"videos 1 to 2 have \[2, 1\] values"):
        pooled_mean([videos[0], videos[1][:1]], 2)
    assert mean([1.0, None, 3.0]) == 2
    assert mean([None]) is None


def test_a_single_video_in_pieces() -> None:
    spec = get_plugins().get("metric", "flicker")
    measure = {"flicker": Measure(spec, get_plugins().load_target(spec)({}, torch.device("cpu")), {})}
    video = torch.rand(1, 3, 7, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = 1 - video.diff(dim=2).abs().mean(dim=(0, 1, 3, 4)).double()
    for lengths in ([7], [1] * 7, [3, 4]):
        values = Values(measure)
        for piece in video.split(lengths, dim=2):
            values.add(piece)
        torch.testing.assert_close(values.of_frames()["flicker"], expected, rtol=1e-5, atol=1e-7)
