"""Samples that an evaluation wants become runs of `sora generate`, and reports say how they were made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sora_cli.errors import UsageError
from sora_cli.evaluation.provenance import clip_record, provenance
from sora_cli.evaluation.samples import Sample, part_of, read_plan, sample_runs, write_plan

SHORT = {"shape": {"size": "16x16", "frames": 2}, "model": {"name": "fake"}, "sampling": {"steps": 1}}


@pytest.mark.parametrize("name", ["../x.mp4", "/x.mp4", "a/../../x.mp4", "", "a\0.mp4"])
def test_a_name_stays_in_its_folder(name: str) -> None:
    with pytest.raises(UsageError, match="no name of a file"):
        Sample(name, "x", 1)


def test_samples_with_the_same_settings_are_one_run() -> None:
    wide = {"shape": {"resolution": "240p", "duration": "2s"}}
    samples = [Sample("a-0.mp4", "a", 5), Sample("b.mp4", "b", 6, wide), Sample("a-1.mp4", "a", 7)]
    given = {"shape": {"resolution": None, "duration": "4s"}, "sampling": {"steps": 3}}
    first, second = sample_runs(samples, Path("out"), given)
    assert first["prompt"]["prompts"] == ("a", "a")
    assert first["output"]["files"] == [{"path": "out/a-0.mp4", "seed": 5}, {"path": "out/a-1.mp4", "seed": 7}]
    assert second["shape"] == {"resolution": "240p", "duration": "4s"}, "the user wins"
    assert second["sampling"] == {"steps": 3}
    assert wide == {"shape": {"resolution": "240p", "duration": "2s"}}


def test_the_size_and_length_of_the_user_win_and_pictures_stay_pictures() -> None:
    own = {"shape": {"size": "16x16", "frames": 9}}
    still = {"shape": {"size": "16x16", "frames": 1}}
    samples = [Sample("a.mp4", "a", 1, own), Sample("b.png", "b", 1, still)]

    def shapes(**given: object) -> list[object]:
        return [run["shape"] for run in sample_runs(samples, Path(), {"shape": given})]

    assert shapes(frames=5, segments=2) == [{"size": "16x16", "frames": 5, "segments": 2}, still["shape"]]
    assert shapes(duration="2s") == [{"size": "16x16", "duration": "2s"}, still["shape"]]
    assert shapes(resolution="144p") == [{"resolution": "144p", "frames": 9}, {"resolution": "144p", "frames": 1}]


def test_two_samples_of_one_name_are_an_error() -> None:
    with pytest.raises(UsageError, match=r"several samples .* a\.mp4"):
        list(sample_runs([Sample("a.mp4", "a", 1), Sample("a.mp4", "b", 2)], Path(), {}))


def test_the_parts_of_machines_are_all_samples_once() -> None:
    samples = [Sample(f"{number}.mp4", "x", number) for number in range(7)]
    parts = [part_of(samples, f"{number}/3") for number in (1, 2, 3)]
    assert sorted(sample.seed for part in parts for sample in part) == list(range(7))
    assert part_of(samples, None) == samples
    for wrong in ("0/3", "4/3", "1", "a/b", "-1/3"):
        with pytest.raises(UsageError, match="--shard"):
            part_of(samples, wrong)


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    samples = [Sample("a b-0.mp4", "a b {}", 3, {"shape": {"frames": 1}}), Sample("é.mp4", "é", 4)]
    write_plan(tmp_path / "plan.json", samples, {"suite": "t2v"})
    assert read_plan(tmp_path / "plan.json") == (samples, {"suite": "t2v"})
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("text", ["", "[]", '{"samples": [{"name": "../a", "prompt": "a", "seed": 1}], "about": {}}'])
def test_what_is_no_plan_is_an_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(UsageError):
        read_plan(tmp_path / "plan.json")


def test_clips_get_the_names_and_seeds_of_the_samples(fake_plugin, sora, tmp_path: Path) -> None:
    samples = [
        Sample("A cat, seen-0.mp4", "A cat, seen", 11, SHORT),
        Sample("A cat, seen-1.mp4", "A cat, seen", 99, SHORT),
    ]
    (run,) = sample_runs(samples, tmp_path / "out", {})
    config = tmp_path / "run.yaml"
    config.write_text(json.dumps(run))
    made = sora("generate", "--config", str(config), "--threads", "1", "-q")
    assert made.code == 0, made.err
    paths = [tmp_path / "out" / sample.name for sample in samples]
    assert made.out.split("\n")[:-1] == [str(path) for path in paths]
    assert [clip_record(path)["seed"] for path in paths] == [11, 99]
    again = sora("generate", "--config", str(config), "--threads", "1", "--json")
    assert [clip["status"] for clip in json.loads(again.out)] == ["skipped", "skipped"]
    (tmp_path / "other.mp4").write_bytes(b"x")
    report = provenance([*paths, tmp_path / "other.mp4"])
    assert report["unknown"] == [str(tmp_path / "other.mp4")]
    assert report["shared"]["model"] == "fake"
    assert report["shared"]["prompt"] == "A cat, seen"
    assert report["shared"]["num_frames"] == 2
    assert {path: own["seed"] for path, own in report["clips"].items()} == {str(paths[0]): 11, str(paths[1]): 99}


def test_files_named_otherwise_than_what_is_made_are_an_error(fake_plugin, sora, tmp_path: Path) -> None:
    (run,) = sample_runs([Sample("a.png", "a", 1, SHORT)], tmp_path, {})
    (tmp_path / "run.yaml").write_text(json.dumps(run))
    made = sora("generate", "--config", str(tmp_path / "run.yaml"))
    assert made.code == 2
    assert "videos are written as .mp4" in made.err
