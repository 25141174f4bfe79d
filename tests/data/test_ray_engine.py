"""The same work on a Ray cluster of several processes gives the same results."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="needs the extra ray")
pytest.importorskip("pebble", reason="needs the extra data")
pl = pytest.importorskip("polars")

from sora_cli.data.local import LocalEngine  # noqa: E402
from sora_cli.data.ray_engine import RayEngine, _Actor, _pack, _unpack  # noqa: E402
from sora_cli.data.work import Job, Work, added_columns, do_work, open_results  # noqa: E402
from sora_cli.errors import SoraError  # noqa: E402


@pytest.fixture
def work(tmp_path, monkeypatch):
    import sora_cli

    folders = [Path(__file__).parent, Path(sora_cli.__file__).parents[1]]
    monkeypatch.setenv("PYTHONPATH", ":".join(map(str, folders)))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    options = {"log": str(tmp_path / "calls")}
    columns = {"length": "int", "half": "float"}
    return Work("measure", "work_targets:make", options, ("path",), columns, rows_at_once=2, seconds=2.0)


def test_results_are_those_of_one_machine(work, tmp_path):
    paths = ["a", "bb", "raise", "ccc", "hang", "die", "reason", "dddd"]
    frame = pl.DataFrame({"path": paths})
    made = []
    for name, engine in (("local", LocalEngine(("cpu", "cpu"))), ("ray", RayEngine(workers=2))):
        results = open_results(tmp_path / name, work)
        do_work(frame, work, engine, results, verb="measuring")
        made.append(added_columns(frame, work, results))
    assert made[0].equals(made[1])
    assert made[0]["length"].to_list() == [1, 2, None, 3, None, None, None, 4]


def test_what_stops_a_run_comes_out_of_an_actor(work):
    missing = dataclasses.replace(work, target="work_targets:make_missing")
    actor = _Actor(dataclasses.asdict(missing), "cpu")
    try:
        (text,) = actor({"job": [_pack(Job([1], [{"path": "a"}]))]})["outcomes"]
    finally:
        actor.workers.__exit__()
    with pytest.raises(SoraError, match="nothing is missing") as caught:
        _unpack(text)
    assert caught.value.exit_code == 3


def test_a_cluster_that_is_not_there(work, tmp_path):
    with pytest.raises(SoraError, match="no Ray cluster at"):
        do_work(
            pl.DataFrame({"path": ["a"]}),
            work,
            RayEngine("127.0.0.1:1"),
            open_results(tmp_path / "o", work),
            verb="measuring",
        )
