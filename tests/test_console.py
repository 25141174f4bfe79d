from __future__ import annotations

import errno
import io
import json
import sys

import pytest

from sora_cli import progress
from sora_cli.console import Console, command_output, counted, get_console
from sora_cli.errors import SoraError


def test_one_thing_is_singular() -> None:
    assert [counted(count, "row") for count in (0, 1, 2)] == ["0 rows", "1 row", "2 rows"]


def test_results_are_lines_for_people_and_pipes(capsys) -> None:
    for mode in ("human", "quiet"):
        Console(mode).result("a.mp4", {"path": "a.mp4", "seed": 1})
        assert capsys.readouterr().out == "a.mp4\n"


def test_results_are_one_document_in_json(capsys) -> None:
    with command_output(json=True) as console:
        console.result("a.mp4", {"path": "a.mp4"})
        console.result("b.mp4")
        assert capsys.readouterr().out == ""
    assert json.loads(capsys.readouterr().out) == [{"path": "a.mp4"}, "b.mp4"]


def test_letters_that_the_output_cannot_show(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    Console().result("瀑布.mp4")
    assert raw.getvalue() == b"\\u7011\\u5e03.mp4\n"
    raw.truncate(0)
    raw.seek(0)
    with command_output(json=True) as console:
        console.result("瀑布.mp4")
    assert json.loads(raw.getvalue()) == ["瀑布.mp4"]


def test_output_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(SoraError, match="cannot write to standard output: No space left on device"):
        Console().result("a.mp4")


def test_nothing_is_an_empty_list_in_json(capsys) -> None:
    with command_output(json=True) as console:
        console.table([], ["name"])
    assert json.loads(capsys.readouterr().out) == []
    with command_output(json=True):
        pass
    assert json.loads(capsys.readouterr().out) == []


def _fail(*results: str) -> None:
    with command_output(json=True) as console:
        for path in results:
            console.result(path)
        raise SoraError("no")


def test_a_failed_command_prints_the_results_it_had(capsys) -> None:
    with pytest.raises(SoraError):
        _fail("a.mp4")
    assert json.loads(capsys.readouterr().out) == ["a.mp4"]
    with pytest.raises(SoraError):
        _fail()
    assert capsys.readouterr().out == ""


def test_two_documents_are_a_mistake_of_the_program() -> None:
    console = Console("json")
    console.record({"a": 1})
    with pytest.raises(RuntimeError, match="one JSON document"):
        console.table([], ["a"])


def test_a_table_is_aligned_and_ends_at_the_last_letter(capsys) -> None:
    rows = [{"name": "a", "n": 1, "ok": True}, {"name": "longer", "n": None, "ok": False, "extra": [1, 2]}]
    Console().table(rows, ["name", "n", "ok"], title="Things")
    assert capsys.readouterr().out == "Things\nname    n  ok\na       1  yes\nlonger  -  no\n"
    Console("quiet").table(rows, ["n", "name"])
    assert capsys.readouterr().out == "a\nlonger\n"


def test_a_record_is_indented_by_depth(capsys) -> None:
    Console().record({"name": "x", "inner": {"list": [1, "b"], "empty": {}}, "last": None}, title="Thing")
    assert capsys.readouterr().out == ("Thing\n  name  x\n  inner\n    list   1, b\n    empty  -\n  last  -\n")


def test_notes_are_silent_in_quiet_mode_and_warnings_are_not(capsys) -> None:
    console = Console("quiet")
    console.note("by the way")
    console.warn("careful")
    console.error(SoraError("it failed", hint="do this\nor that"))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "warning: careful\nerror: it failed\n  do this\n  or that\n"


def test_json_leaves_stdout_to_the_document(capsys) -> None:
    with command_output(json=True) as console:
        console.note("working")
        with console.progress("sampling", 2) as counter:
            counter.advance()
        console.record({"done": True})
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"done": True}
    assert "working" in captured.err
    assert "sampling" in captured.err


def test_the_command_console_is_the_one_that_get_console_gives() -> None:
    with command_output(quiet=True) as console:
        assert get_console() is console
        assert console.mode == "quiet"


def test_progress_without_a_terminal_says_start_and_end(capsys) -> None:
    with Console().progress("sampling", 30) as counter:
        for _ in range(30):
            counter.advance()
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "sampling ..."
    assert len(lines) == 2
    assert lines[1].startswith("sampling: 30/30 in ")


def test_progress_without_a_terminal_speaks_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    said: list[str] = []
    with progress.lines("sampling", 10, said.append) as counter:
        for _ in range(10):
            now[0] += 2.0
            counter.advance()
    assert said == [
        "sampling ...",
        "sampling: 3/10, 6.0 s so far, about 14.0 s left",
        "sampling: 6/10, 12.0 s so far, about 8.0 s left",
        "sampling: 9/10, 18.0 s so far, about 2.0 s left",
        "sampling: 10/10 in 20.0 s",
    ]


def test_what_was_done_before_says_nothing_about_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    said: list[str] = []
    with progress.lines("training", 1000, said.append, 990) as counter:
        now[0] += 6.0
        counter.update(990)
        now[0] += 6.0
        counter.update(994)
    assert said[1:3] == ["training: 990/1000, 6.0 s so far", "training: 994/1000, 12.0 s so far, about 18.0 s left"]


def test_progress_is_silent_in_quiet_mode(capsys) -> None:
    with Console("quiet").progress("sampling", 2) as counter:
        counter.update(2)
    assert capsys.readouterr().err == ""


def test_progress_on_a_terminal_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Console().progress("sampling [1/2]", 4, 1) as counter:
        counter.advance(2)
        counter.update(4)
    assert "sampling [1/2]" in terminal.getvalue()
    assert "4/4" in terminal.getvalue()


@pytest.mark.parametrize(("seconds", "text"), [(4.21, "4.2 s"), (187, "3:07"), (3725, "1:02:05")])
def test_clock(seconds: float, text: str) -> None:
    assert progress.clock(seconds) == text
