"""Work on rows: nothing is lost, done twice or stopped by a bad row."""

from __future__ import annotations

import dataclasses
import errno
import json
import tempfile

import pytest

pl = pytest.importorskip("polars")
pytest.importorskip("pebble")

from sora_cli.data.local import LocalEngine, Workers, apply  # noqa: E402
from sora_cli.data.work import (  # noqa: E402
    KEY,
    REASON,
    Job,
    Made,
    Outcome,
    Work,
    added_columns,
    do_work,
    new_rows,
    open_results,
    row_keys,
)
from sora_cli.errors import SoraError, StopError, UsageError  # noqa: E402

COLUMNS = {"length": "int", "half": "float"}


@pytest.fixture
def work(tmp_path, monkeypatch):
    from pathlib import Path

    import sora_cli

    folders = [Path(__file__).parent, Path(sora_cli.__file__).parents[1]]
    monkeypatch.setenv("PYTHONPATH", ":".join(map(str, folders)))
    options = {"log": str(tmp_path / "calls")}
    return Work("measure", "work_targets:make", options, ("path",), COLUMNS, rows_at_once=3, seconds=3.0)


def run(paths, work, output, devices=("cpu",), **settings):
    frame = pl.DataFrame({"path": paths, "note": [f"n{i}" for i in range(len(paths))]})
    results = open_results(output, work, **settings)
    do_work(frame, work, LocalEngine(devices), results, verb="measuring")
    return frame, results


def calls(work):
    from pathlib import Path

    return [line.split()[0] for line in Path(work.options["log"]).read_text().splitlines()]


def test_results_are_in_the_order_of_the_table(work, tmp_path):
    paths = ["aaa", "b", "cccccc", "dd", "eeeee", "ffff", "g" * 9]
    frame, results = run(paths, work, tmp_path / "out.csv", devices=("cpu", "cpu"))
    made = added_columns(frame, work, results)
    assert made["path"].to_list() == paths
    assert made["length"].to_list() == [len(path) for path in paths]
    assert made["half"].to_list() == [len(path) / 2 for path in paths]
    assert made["note"].to_list() == frame["note"].to_list()
    assert made[REASON].null_count() == len(paths)
    assert KEY not in made.columns


def test_bad_rows_have_reasons_and_stop_nobody(work, tmp_path, capsys, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    paths = ["aa", "raise", "bbb", "reason", "hang", "cccc", "die", "once", "ddddd"]
    frame, results = run(paths, work, tmp_path / "out.csv")
    made = {row["path"]: row for row in added_columns(frame, work, results).to_dicts()}
    assert {path: made[path]["length"] for path in ("aa", "bbb", "cccc", "ddddd", "once")} == {
        "aa": 2,
        "bbb": 3,
        "cccc": 4,
        "ddddd": 5,
        "once": 4,
    }
    assert made["raise"][REASON] == "raise: ValueError: no frames"
    assert made["reason"][REASON] == "reason: it is empty"
    assert made["hang"][REASON] == "hang: it took longer than 3 s"
    assert made["die"][REASON] == "die: the process ended (signal 9)"
    assert [row["length"] for row in made.values() if row[REASON]] == [None] * 4
    assert "hang: it took longer than 3 s" in capsys.readouterr().err
    assert not list((tmp_path / "temporary").iterdir())


def test_a_run_goes_on_where_it_stopped(work, tmp_path):
    output = tmp_path / "out.csv"
    run(["a", "bb", "ccc"], work, output)
    with (tmp_path / "out.csv.work" / "results.jsonl").open("a") as log:
        log.write('{"key": 12, "rows": [{"le')  # its writing was cut off
    frame, results = run(["new", "a", "bb", "ccc", "a"], work, output)
    assert calls(work) == ["a", "bb", "ccc", "new"]
    assert added_columns(frame, work, results)["length"].to_list() == [3, 1, 2, 3, 1]


def test_an_interrupted_run_keeps_what_was_done(work, tmp_path, capsys):
    class Interrupted(LocalEngine):
        def run(self, work, jobs):
            yield next(iter(super().run(work, jobs)))
            raise KeyboardInterrupt

    frame = pl.DataFrame({"path": ["a", "bb", "ccc", "dddd"]})
    with pytest.raises(KeyboardInterrupt):
        do_work(frame, work, Interrupted(), open_results(tmp_path / "o.csv", work), verb="measuring")
    results = open_results(tmp_path / "o.csv", work)
    assert f"{len(results.seen)} of 4 rows are done; the same command goes on" in capsys.readouterr().err
    before = [
        path for path, key in zip(frame["path"], row_keys(frame, work.inputs), strict=True) if key in results.seen
    ]
    assert before
    do_work(frame, work, LocalEngine(), results, verb="measuring")
    assert sorted(set(calls(work))) == ["a", "bb", "ccc", "dddd"]
    assert [calls(work).count(path) for path in before] == [1] * len(before)
    assert added_columns(frame, work, results)["length"].to_list() == [1, 2, 3, 4]


def test_other_settings_are_another_run(work, tmp_path):
    import dataclasses

    output = tmp_path / "out.csv"
    run(["a"], work, output)
    other = dataclasses.replace(work, options={**work.options, "threshold": 3})
    with pytest.raises(UsageError, match="threshold"):
        open_results(output, other)
    assert open_results(output, other, restart=True).seen == set()


def test_rows_that_failed_are_tried_again_by_the_next_run(work, tmp_path):
    output = tmp_path / "out.csv"
    paths = ["aa", "raise", "bbb", "reason"]
    frame, results = run(paths, work, output)
    assert results.end(keeps=False) == 2
    assert sorted(results.seen) == sorted(int(key) for key in row_keys(frame, work.inputs)[[0, 2]])
    before = len(calls(work))
    _, results = run(paths, work, output)
    assert set(calls(work)[before:]) == {"raise", "reason"}
    before = len(calls(work))
    _, results = run(paths, work, output)  # it has not come to its end: every row is tried once
    assert len(calls(work)) == before
    assert results.end(keeps=False) == 2
    _, results = run(["aa", "bbb"], work, output)
    assert results.end(keeps=False) == 0
    assert not results.folder.exists()


def test_what_a_log_of_other_settings_is(work, tmp_path):
    output = tmp_path / "out.csv"
    other = dataclasses.replace(work, options={**work.options, "threshold": 3})
    _, results = run(["aa", "raise"], work, output)
    with pytest.raises(UsageError, match=r"an unfinished run with other settings \(threshold\)"):
        open_results(output, other, overwrite=True)
    results.end(keeps=True)
    with pytest.raises(UsageError, match=r"the results of a run with other settings \(threshold\)"):
        open_results(output, other, overwrite=True)
    assert len(open_results(output, work).seen) == 1
    # It went on, and is unfinished until it ends.
    with pytest.raises(UsageError, match="an unfinished run"):
        open_results(output, other)
    # It is there only for rows that failed: what it has is in the output, which is to be replaced.
    _, results = run(["aa", "raise"], work, output)
    results.end(keeps=False)
    with pytest.raises(UsageError, match="the results of a run"):
        open_results(output, other)
    assert open_results(output, other, overwrite=True).seen == set()


def test_what_nobody_can_do_ends_the_run(work, tmp_path):
    import dataclasses

    missing = dataclasses.replace(work, target="work_targets:make_missing")
    with pytest.raises(SoraError, match="nothing is missing") as caught:
        run(["a", "b"], missing, tmp_path / "out.csv")
    assert (caught.value.exit_code, caught.value.hint) == (3, "pip install nothing")


def test_new_rows_keep_the_columns_of_their_source(work, tmp_path):
    import dataclasses

    parts = dataclasses.replace(work, target="work_targets:make_parts", columns={"part": "int"})
    frame, results = run(["2", "x", "0", "3", "2"], parts, tmp_path / "out.csv")
    made, failed, empty = new_rows(frame, parts, results)
    assert made.columns == ["part", "path", "note"]
    assert made.rows() == [(0, "2", "n0"), (1, "2", "n0"), (0, "3", "n3"), (1, "3", "n3"), (2, "3", "n3")]
    assert failed["path"].to_list() == ["x"]
    assert failed[REASON][0].startswith("x: ValueError")
    assert empty["path"].to_list() == ["0"]


def test_a_damaged_log_is_said(work, tmp_path):
    output = tmp_path / "out.csv"
    run(["a"], work, output)
    log = tmp_path / "out.csv.work" / "results.jsonl"
    log.write_text("nonsense\n" + log.read_text())
    with pytest.raises(SoraError, match="damaged at byte 0"):
        open_results(output, work)


def test_keys_depend_on_the_inputs_alone():
    frame = pl.DataFrame({"path": ["a", "b", "a"], "text": ["x", "y", "z"]})
    keys = row_keys(frame, ("path",))
    assert keys[0] == keys[2] != keys[1]
    assert len(set(row_keys(frame, ("path", "text")))) == 3
    assert (row_keys(frame, ("path", "absent")) == keys).all()


def test_numbers_that_are_not_finite_are_missing(work, tmp_path):
    from sora_cli.data.work import Made, Outcome

    results = open_results(tmp_path / "out.csv", work)
    results.add([Outcome(5, Made([{"length": 1, "half": float("nan")}]))])
    assert json.loads((tmp_path / "out.csv.work" / "results.jsonl").read_text())["rows"] == [
        {"length": 1, "half": None}
    ]


def test_no_process_starts_after_the_end(work):
    workers = Workers(work, ("cpu",))
    with workers:
        done = workers.do(iter([Job([number], [{"path": str(number)}]) for number in range(9)]))
        next(done)
    with pytest.raises(SoraError, match="the run has ended"):
        list(done)
    assert not workers.workers[0].pool.active


def test_a_full_disk_stops_the_run_and_is_no_reason_of_a_row():
    def fails(number):
        def write(rows):
            try:
                raise OSError(number, "it cannot be")
            except OSError as error:
                raise SoraError(f"cannot write {rows[0]['path']}") from error

        return write

    rows = [{"path": "a"}, {"path": "b"}]
    with pytest.raises(StopError, match="cannot write a"):
        apply(fails(errno.ENOSPC), rows)
    assert [made.reason for made in apply(fails(errno.EIO), rows)] == ["cannot write a", "cannot write b"]


def test_a_plan_starts_over_only_where_settings_changed(work, tmp_path):
    output = tmp_path / "o.csv"
    open_results(output, work).add([Outcome(7, Made([{"length": 1}]))])
    assert open_results(output, work, restart_changed=True).seen == {7}
    tuned = dataclasses.replace(work, options={**work.options, "batch": 3}, settings=work.options)
    assert open_results(output, tuned, restart_changed=True).seen == {7}
    other = dataclasses.replace(work, options={**work.options, "limit": 3})
    with pytest.raises(UsageError, match="limit"):
        open_results(output, other)
    assert open_results(output, other, restart_changed=True).seen == set()
