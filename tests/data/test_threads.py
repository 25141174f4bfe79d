"""Work in threads of one process: what is paid for is kept, whatever ends the run."""

from __future__ import annotations

import os
import signal
import threading

import pytest

pl = pytest.importorskip("polars")

from sora_cli.data.threads import ThreadEngine  # noqa: E402
from sora_cli.data.work import Made, Work, do_work, open_results, row_keys  # noqa: E402
from sora_cli.errors import StopError  # noqa: E402

#: More than threads can do while the main one waits for its turn.
ROWS = 1000
#: What the row function does in a test, by the number of the row.
actions: dict[int, object] = {}
called: list[int] = []


def make(options, device):
    def work(rows):
        (row,) = rows
        called.append(row["number"])
        actions.get(row["number"], lambda: None)()
        return [Made([{"double": row["number"] * 2}])]

    return work


@pytest.fixture
def run(tmp_path):
    """Work on the table so far, and the numbers that are done."""
    called.clear()
    actions.clear()
    frame = pl.DataFrame({"number": range(ROWS)})
    work = Work("double", f"{__name__}:make", {}, ("number",), {"double": "int"}, rows_at_once=1)
    keys = row_keys(frame, work.inputs).tolist()
    results = open_results(tmp_path / "out.csv", work)

    def go(threads=2):
        do_work(frame, work, ThreadEngine(threads), results, verb="doubling")

    def done():
        return sorted(keys.index(key) for key in open_results(tmp_path / "out.csv", work).seen)

    return go, done, results


def fail():
    raise ValueError("odd")


def test_rows_that_raise_have_a_reason(run):
    go, done, results = run
    actions[7] = fail
    go(threads=5)
    assert done() == sorted(called) == list(range(ROWS))
    reasons = results.frame({"double": "int"})["__reason"].drop_nulls().to_list()
    assert reasons == ["a row: ValueError: odd"]


def test_after_an_error_for_all_rows_the_others_are_kept(run):
    go, done, _ = run
    is_over = threading.Event()

    def stop():
        is_over.set()
        raise StopError("no more")

    actions[0], actions[1] = is_over.wait, stop
    with pytest.raises(StopError, match="no more"):
        go()
    assert done() == sorted(set(called) - {1})
    assert 0 in done()
    assert len(called) < ROWS
    actions.clear()
    go()
    assert done() == list(range(ROWS))
    assert len(called) == ROWS + 1


def interrupt(stop=signal.SIGINT):
    """As a terminal does: to the process, and not to this thread of it."""
    os.kill(os.getpid(), stop)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_after_ctrl_c_what_is_under_way_is_kept(run, stop):
    go, done, _ = run
    is_over = threading.Event()

    def press():
        interrupt(stop)
        is_over.set()

    actions[0], actions[1] = is_over.wait, press
    before = signal.getsignal(stop)
    with pytest.raises(KeyboardInterrupt):
        go()
    assert signal.getsignal(stop) is before
    assert done() == sorted(called)
    assert {0, 1} <= set(done())
    assert len(called) < ROWS
    actions.clear()
    go()
    assert sorted(called) == done() == list(range(ROWS))


def test_a_second_ctrl_c_waits_for_nothing(run):
    go, done, _ = run
    never, before = threading.Event(), signal.getsignal(signal.SIGINT)

    def press_twice():
        interrupt()
        while signal.getsignal(signal.SIGINT) is not before:
            never.wait(0.001)
        interrupt()
        never.wait()

    actions[0], actions[1] = never.wait, press_twice
    with pytest.raises(KeyboardInterrupt):
        go()
    assert {0, 1}.isdisjoint(done())
    never.set()
