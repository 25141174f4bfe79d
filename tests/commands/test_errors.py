from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sora_cli.errors import MissingError, SoraError

USAGE_ERRORS = {
    (
        "generat",
        "x",
    ): "error: unknown command 'generat'\n  did you mean 'generate'?\n  run `sora --help` to see them all",
    ("presets", "lst"): "error: unknown command 'lst'\n  did you mean 'list'?\n  run `sora presets --help`",
    ("generate", "x", "--stepz", "3"): "error: no such option --stepz\n  did you mean '--steps'?",
    ("generate", "--resolutoin=720p"): "error: no such option --resolutoin\n  did you mean '--resolution'?",
    ("generate", "x", "--crf", "99"): "error: --crf 99: must be less than or equal to 51\n",
    ("generate", "x", "--num-samples", "1000000000000"): "error: --num-samples 1000000000000: must be less than",
    ("generate", "x", "--segments", "1000000000000"): "error: --segments 1000000000000: must be less than",
    ("generate", "x", "--fps", "0"): "error: --fps 0.0: must be greater than 0\n",
    ("train", "--frames", "0"): "error: --frames 0: must be greater than or equal to 1\n",
    ("train", "--set", "run.steps=0"): "error: --set: run.steps 0: must be greater than or equal to 1\n",
    ("train", "--set", "optimizer.lrr=1"): "unknown setting 'optimizer.lrr'\n  optimizer has name, learning_rate,",
    ("train", "--lerning-rate", "1"): "error: no such option --lerning-rate\n  did you mean '--lr'?\n",
    ("generate", "x", "--foo"): "error: no such option --foo\n  run `sora generate --help`",
    ("train", "--xyzzy"): "error: no such option --xyzzy\n  run `sora train --help`",
    ("--versoin",): "error: no such option --versoin\n  did you mean '--version'?",
    ("generate", "x", "--steps", "many"): "error: invalid value for '--steps': 'many' must be a valid integer\n",
    ("generate", "x", "--dtype", "fp8"): "error: invalid value for '--dtype': 'fp8' is not one of",
    ("generate", "x", "--steps"): "error: option '--steps' requires an argument",
    ("show",): "error: missing argument",
    ("show", "no.mp4"): "error: no file no.mp4",
    ("show", "."): "error: . is a folder\n",
    ("plugins",): "error: missing command\n  run `sora plugins --help`",
    ("presets", "show", "fsat"): "error: unknown preset 'fsat'",
    ("generate", "x", "-"): "error: - reads all prompts from standard input",
}


@pytest.mark.parametrize("arguments", USAGE_ERRORS, ids=" ".join)
def test_usage_errors_are_short_and_exit_2(arguments: tuple[str, ...], sora) -> None:
    finished = sora(*arguments)
    assert finished.code == 2
    assert finished.out == ""
    assert USAGE_ERRORS[arguments].casefold() in finished.err.casefold()
    assert "Traceback" not in finished.err
    assert finished.err.startswith("error: ")


def test_clips_are_looked_at_before_anything_is_loaded(sora, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("text.mp4").write_text("no video")
    monkeypatch.setitem(sys.modules, "sora_cli.evaluation.compare", None)  # which loads torch
    assert "two or more clips" in sora("compare", "text.mp4").err
    assert sora("compare", "text.mp4", "no.mp4").err == "error: there is no file no.mp4\n"
    for command in ("encode", "reconstruct", "eval", "stats"):
        done = sora("vae", command, "text.mp4", "--vae", "nano")
        assert (done.code, done.err.startswith("error: text.mp4: it cannot be decoded")) == (1, True), done.err


def _fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*arguments: object, **settings: object) -> None:
        raise error

    monkeypatch.setattr("sora_cli.presets.list_presets", fail)


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (SoraError("it failed", hint="try this"), 1, "error: it failed\n  try this\n"),
        (MissingError("no weights"), 3, "error: no weights\n"),
        (ValueError("odd"), 1, "error: ValueError: odd\n  run with --debug for the traceback\n"),
        (
            PermissionError(13, "Permission denied", "a.png"),
            1,
            "error: a.png: Permission denied\n  run with --debug for the traceback\n",
        ),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (SystemExit(5), None, ""),
    ],
)
def test_exit_codes(error: BaseException, code: int | None, text: str, sora, monkeypatch: pytest.MonkeyPatch) -> None:
    _fail_with(monkeypatch, error)
    if code is None:
        with pytest.raises(SystemExit):
            sora("presets", "list")
        return
    finished = sora("presets", "list")
    assert finished.code == code
    assert finished.err == text
    assert finished.out == ""


@pytest.mark.parametrize("way", ["root option", "variable"])
def test_debug_shows_the_traceback(way: str, sora, monkeypatch: pytest.MonkeyPatch) -> None:
    _fail_with(monkeypatch, ValueError("odd"))
    if way == "variable":
        monkeypatch.setenv("SORA_DEBUG", "1")
    finished = sora(*(["--debug"] if way == "root option" else []), "presets", "list")
    assert finished.code == 1
    assert "Traceback" in finished.err
    assert finished.err.endswith("error: ValueError: odd\n")
    monkeypatch.setenv("SORA_DEBUG", "0")
    assert "Traceback" not in sora("presets", "list").err


def test_debug_on_the_command(sora) -> None:
    finished = sora("generate", "x", "--debug", "--config", "no.yaml")
    assert finished.code == 2
    assert "Traceback" in finished.err


def test_a_closed_pipe_is_quiet() -> None:
    command = [sys.executable, "-m", "sora_cli", "presets", "list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait() == 1


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_during_generation_is_one_line_and_130(fake_plugin) -> None:
    command = [sys.executable, "-m", "sora_cli", "generate", "x", "-m", "fake", "--steps", "400", "--threads", "1"]
    env = {**os.environ, "FAKE_STEP_SECONDS": "0.05"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("sampling"):
                break
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in err
    assert err.splitlines()[-1] == "interrupted"
