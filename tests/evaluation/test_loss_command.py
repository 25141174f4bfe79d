"""`sora eval loss` with nano on small rendered clips: results, going on after a stop, several processes."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from sora_cli.evaluation import loss, loss_measure
from sora_cli.evaluation.chart import line_chart
from sora_cli.evaluation.loss_logs import LOGS

OUT = Path("loss.json")
PART = Path("loss.json.part")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of five rendered clips of 8 frames."""
    from typer.testing import CliRunner

    from sora_plugins.nano.commands import app

    folder = tmp_path_factory.mktemp("clips")
    options = ("--count", "5", "--frames", "8", "--size", "144x256", "-o", str(folder), "-q")
    done = CliRunner().invoke(app, ["render", *options])
    assert done.exit_code == 0, done.output
    return folder / "clips.csv"


@pytest.fixture
def measure(sora, clips: Path):
    """Run the command on the table, with two times, in float32."""
    plain = ("--timesteps", "2", "--workers", "0", "--dtype", "fp32", "--device", "cpu", "-m", "nano", "-o", str(OUT))

    def run(*more: str, table: Path = clips, code: int = 0):
        done = sora("eval", "loss", str(table), *plain, *more)
        assert done.code == code, done.err
        return done

    return run


def result() -> dict:
    return json.loads(OUT.read_text())


def losses() -> list[list[float]]:
    return [entry["losses"] for entry in result()["buckets"]]


def test_a_result_and_its_chart(measure, clips: Path):
    done = measure("--bucket", "144p:5:2", "--bucket", "144p:1:4", "--bucket", "240p:5:1", "--bucket", "144p:3:5")
    lines = done.out.splitlines()
    assert lines[0].split() == ["resolution", "frames", "clips", "unreadable", "loss"]
    found = result()
    table = found["table"]["144p"]
    assert [line.split() for line in lines[1:]] == [
        ["144p", frames, "5", "0", f"{table[frames]:.4f}"] for frames in ("5", "3")
    ]
    assert "left out: 240p with 5 frames: no clip fits, 5 too small" in done.err
    assert "left out: 144p with 1 frames: no clip fits, 5 no pictures" in done.err
    assert [entry["resolution"] for entry in found["skipped"]] == ["144p", "240p"]
    assert found["timesteps"] == pytest.approx([1000 / 3, 2000 / 3])
    assert found["timestep_dtype"] == "float32"
    assert found["settings"]["seed"] == 42
    assert found["settings"]["model"]["dtype"] == "fp32"
    assert all(found["settings"][part]["weights"] for part in ("model", "vae", "text_encoder"))
    assert found["settings"]["data"]["rows"] == 5
    assert all(0 < loss < 5 for entry in losses() for loss in entry)
    names = [text.text for text in ElementTree.parse("loss.svg").iter("{http://www.w3.org/2000/svg}text")]
    assert {"144p, 5", "144p, 3", "Validation loss of nano"} <= set(names)
    assert not PART.exists()


def test_what_is_known_is_not_measured_again(measure, monkeypatch: pytest.MonkeyPatch):
    first = measure("--bucket", "144p:5:2", "-q")
    assert first.out == f"{OUT}\n"
    before = losses()
    measured = spy(monkeypatch)
    shown = json.loads(measure("--bucket", "144p:5:3", "--bucket", "144p:3:2", "--json").out)
    assert measured == [("144p", 3)]
    assert losses()[0] == before[0]
    assert shown["table"] == result()["table"]
    refused = measure("--bucket", "144p:5:2", "--seed", "1", code=2)
    assert "was measured with other settings: seed" in refused.err
    assert losses()[0] == before[0]
    measure("--bucket", "144p:5:2", "--seed", "1", "--overwrite")
    assert len(losses()) == 1
    assert losses()[0] != pytest.approx(before[0], rel=1e-4)
    OUT.write_text("mine")
    assert "no result of this command" in measure("--bucket", "144p:5:2", code=2).err
    assert OUT.read_text() == "mine"


def spy(monkeypatch: pytest.MonkeyPatch, stop_at: int | None = None) -> list[tuple[str, int]]:
    """The buckets that are measured; Ctrl-C at the one of that number."""
    measured: list[tuple[str, int]] = []
    original = loss_measure.LossMeter.measure

    def measure(self, bucket, advance):
        if len(measured) == stop_at:
            raise KeyboardInterrupt
        measured.append(bucket[:2])
        return original(self, bucket, advance)

    monkeypatch.setattr(loss_measure.LossMeter, "measure", measure)
    return measured


BOTH = ("--bucket", "144p:5:2", "--bucket", "144p:3:2")


def test_an_interrupted_run_goes_on(measure):
    measure(*BOTH)
    whole = result()
    OUT.unlink()
    Path("loss.svg").unlink()
    with pytest.MonkeyPatch.context() as patch:
        spy(patch, stop_at=1)
        stopped = measure(*BOTH, code=130)
    assert "kept: the buckets that are measured, in loss.json.part" in stopped.err
    assert not OUT.exists()
    assert "other settings: seed" in measure(*BOTH, "--seed", "1", code=2).err
    assert PART.exists()
    with pytest.MonkeyPatch.context() as patch:
        measured = spy(patch)
        measure(*BOTH)
    assert measured == [("144p", 3)]
    assert result() == whole
    assert not PART.exists()


def test_two_processes_find_the_same(measure):
    measure(*BOTH)
    alone = losses()
    OUT.rename("alone.json")
    Path("loss.svg").unlink()
    measure(*BOTH, "--gpus", "2")
    for ours, theirs in zip(losses(), alone, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
    assert [entry["clips"] for entry in result()["buckets"]] == [5, 5]
    assert "one process" in measure(*BOTH, "--gpus", "2", "--reference", code=2).err


def test_the_reference(measure):
    """The last clip is forgotten, and another run has the same numbers."""
    measure("--bucket", "144p:5:3", "--reference")
    first = result()
    assert first["timesteps"] == [334.0, 668.0]
    assert first["timestep_dtype"] == "bfloat16"
    assert first["settings"]["model"]["options"] == {"reference_rounding": True}
    assert [entry["clips"] for entry in first["buckets"]] == [3]
    OUT.unlink()
    measure("--bucket", "144p:5:3", "--reference", "--overwrite")
    assert losses() == [entry["losses"] for entry in first["buckets"]]
    assert "other settings: buckets" in measure("--bucket", "144p:5:6", "--reference", code=2).err
    OUT.unlink()
    assert "no whole batch of 6" in measure("--bucket", "144p:5:6", "--reference", "--overwrite", code=1).err


def test_the_table_of_buckets_and_what_the_model_cannot_take(measure):
    done = measure("--res", "144p", code=1)
    assert "nano does not take 408 frames" in done.err
    assert "no clip of the table is in any of the buckets" in done.err
    table = "data.bucket_config={240p: {3: 1}, 144p: {5: 9, 2: null}}"
    measure("--set", table, "--start-index", "1", "--batch-size", "2")
    assert list(result()["table"]) == ["144p"]
    assert "--bucket stands instead" in measure("--res", "144p", "--bucket", "144p:5", code=2).err


def test_too_many_damaged_files(measure, clips: Path, tmp_path: Path):
    """The last row is damaged: the others have the losses that they have without it."""
    measure("--bucket", "144p:5:2")
    alone = losses()
    rows = list(csv.DictReader(clips.open()))
    damaged = tmp_path / "damaged.csv"
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with damaged.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows([{**row, "path": str(clips.parent / row["path"])} for row in rows])
        table.writerow({**rows[0], "path": str(tmp_path / "broken.mp4")})
    failed = measure("--bucket", "144p:5:2", "--overwrite", table=damaged, code=1)
    assert "1 of the 6 clips of 144p, 5 frames cannot be read" in failed.err
    assert "broken.mp4" in failed.err
    measure("--bucket", "144p:5:2", "--overwrite", "--set", "data.max_bad_share=0.2", table=damaged)
    assert losses()[0] == pytest.approx(alone[0], rel=1e-6)
    assert [one["row"] for one in result()["buckets"][0]["unreadable"]] == [5]


def test_places_that_results_cannot_have(measure, tmp_path: Path):
    for name, words in (("a.svg", "name for the chart"), (str(tmp_path), "is a folder")):
        assert words in measure("--bucket", "144p:5:2", "-o", name, code=2).err
    (tmp_path / "file").write_text("")
    refused = measure("--bucket", "144p:5:2", "-o", str(tmp_path / "file" / "a.json"), code=2)
    assert "cannot write to the folder" in refused.err
    assert "measuring" not in refused.err


def test_runs_at_once_keep_the_buckets_of_each_other(tmp_path: Path):
    one, other = (loss.LossStore(tmp_path / "a.json", {"mode": "per clip"}) for _ in range(2))
    one.keep({"resolution": "144p", "frames": 1, "loss": 0.5, "losses": [0.5]}, [500.0])
    other.keep({"resolution": "144p", "frames": 5, "loss": 0.6, "losses": [0.6]}, [500.0])
    one.keep({"resolution": "240p", "frames": 1, "loss": 0.7, "losses": [0.7]}, [500.0])
    kept = [(entry["resolution"], entry["frames"]) for entry in json.loads(one.part.read_text())["buckets"]]
    assert sorted(kept) == [("144p", 1), ("144p", 5), ("240p", 1)]


def test_without_a_table(sora):
    assert "no table of clips is given" in sora("eval", "loss").err


def test_logs(sora, tmp_path: Path):
    for name in LOGS:
        (tmp_path / name).write_text("start\nEvaluation losses: {('144p', 51): 0.12345, ('240p', 1): 2}\n")
    done = sora("eval", "loss", "--from-logs", str(tmp_path))
    assert [line.split() for line in done.out.splitlines()[1:]] == [["144p", "51", "0.1235"], ["240p", "1", "2.0000"]]
    path = tmp_path / "loss.json"
    assert json.loads(path.read_text()) == {"144p": {"51": "0.1235"}, "240p": {"1": "2.0000"}}
    assert sora("eval", "loss", "--from-logs", str(tmp_path), "-q").out == f"{path}\n"
    path.write_text("mine")
    assert sora("eval", "loss", "--from-logs", str(tmp_path)).code == 2
    assert path.read_text() == "mine"
    (tmp_path / LOGS[1]).write_text("killed\n")
    assert (
        f"the last line of {tmp_path / LOGS[1]} has no losses" in sora("eval", "loss", "--from-logs", str(tmp_path)).err
    )
    (tmp_path / LOGS[4]).unlink()
    assert f"lacks {LOGS[4]}" in sora("eval", "loss", "--from-logs", str(tmp_path)).err


def test_a_chart():
    lines = {"a <b>": [(0.0, 1.0), (10.0, 3.0)], "c": [(5.0, float("nan"))]}
    root = ElementTree.fromstring(line_chart(lines, title="t", x_label="x", y_label="y"))
    drawn = [line.get("points") or "" for line in root.iter("{http://www.w3.org/2000/svg}polyline")]
    (left, low), (right, high) = (map(float, point.split(",")) for point in drawn[0].split())
    assert left < right
    assert high < low, "larger values are higher up"
    assert drawn[2] == ""
    assert "a <b>" in [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert ElementTree.fromstring(line_chart({}, title="", x_label="", y_label="")) is not None
