"""Start-up is guarded by the set of imported modules; benchmarks/startup.py has the seconds."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ["torch", "numpy", "transformers", "diffusers", "av", "PIL", "pydantic_settings", "polars", "openai"]
# Help and completion resolve no configuration, so they do not need pydantic, pluggy or YAML either.
FOR_HELP = [*HEAVY, "pydantic", "pluggy", "yaml"]
FOR_COMPLETION = [*HEAVY, "pydantic"]

CASES = [
    (["--help"], None, FOR_HELP),
    (["--version"], None, FOR_HELP),
    (["generate", "--help"], None, FOR_HELP),
    (["plugins", "list", "--help"], None, FOR_HELP),
    (["data", "--help"], None, FOR_HELP),
    (["data", "filter", "--help"], None, FOR_HELP),
    (["completion", "zsh"], None, HEAVY),
    ([], "=", FOR_HELP),
    (["generate"], "=--", FOR_COMPLETION),
    (["generate", "--model"], "=", FOR_COMPLETION),
    (["generate", "a cat", "--steps", "3", "--res"], "=", FOR_COMPLETION),
    (["generate", "--preset"], "=", FOR_COMPLETION),
    (["generate", "--attention"], "=", FOR_COMPLETION),
    (["generate", "--dtype"], "=", FOR_COMPLETION),
    (["plugins", "show"], "=", FOR_COMPLETION),
    (["presets", "list"], None, HEAVY),
    (["presets", "show", "fast"], None, HEAVY),
    (["plugins", "list"], None, HEAVY),
    (["plugins", "show", "fake"], None, HEAVY),
    (["plugins", "show", "latte-ucf101"], None, HEAVY),
    (["plugins", "show", "ucf101-classes"], None, HEAVY),
    (["generate", "x", "-m", "fake", "--dry-run"], None, HEAVY),
    (["generate", "horse riding", "-m", "latte-ucf101", "--dry-run"], None, HEAVY),
    (["generate", "x", "--dry-run", "--json"], None, HEAVY),
    (["generate", "x", "--stepz", "3"], None, FOR_HELP),
]

PROBE = """
import json, os, sys
arguments, word, expected = json.loads(sys.argv[1])
if word is not None:
    os.environ["_SORA_COMPLETE"] = word
from sora_cli.__main__ import main
code = main(arguments)
sys.stdout.flush()
print("\\n" + json.dumps([code, sorted(set(expected) & set(sys.modules))]), file=sys.stderr)
"""


def _name(case: tuple[list[str], str | None, list[str]]) -> str:
    return " ".join(case[0]) + ("" if case[1] is None else " <Tab>")


@pytest.mark.parametrize("case", CASES, ids=_name)
def test_nothing_heavy_is_imported(case: tuple[list[str], str | None, list[str]], fake_plugin) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(case)], capture_output=True, text=True, timeout=120
    )
    assert finished.returncode == 0, finished.stderr
    code, imported = json.loads(finished.stderr.splitlines()[-1])
    assert imported == []
    assert code == (2 if "--stepz" in case[0] else 0), finished.stderr


def test_a_network_is_loaded_without_the_compiler_of_torch() -> None:
    """Its import takes a second."""
    run = ["generate", "a", "-m", "nano", "--steps", "1", "--size", "96x128", "--frames", "1", "-o", "a.png"]
    finished = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps([run, None, ["torch", "torch._dynamo", "sympy"]])],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert json.loads(finished.stderr.splitlines()[-1]) == [0, ["torch"]], finished.stderr


def test_the_guard_sees_what_is_imported() -> None:
    finished = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps([["doctor", "-q"], None, HEAVY])],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert {"av", "torch"} <= set(json.loads(finished.stderr.splitlines()[-1])[1])
