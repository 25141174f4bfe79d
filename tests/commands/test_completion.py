from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sora_cli import complete
from sora_cli.completion_scripts import FILE_NAMES, SCRIPTS
from sora_cli.config.files import read_yaml

COMMITTED = Path(__file__).parents[2] / "completions"


@pytest.mark.parametrize("shell", SCRIPTS)
def test_committed_scripts_are_those_that_are_printed(shell: str, sora) -> None:
    printed = sora("completion", shell)
    assert printed.code == 0
    assert (COMMITTED / FILE_NAMES[shell]).read_text() == printed.out


def test_no_other_file_is_in_the_folder() -> None:
    assert {path.name for path in COMMITTED.iterdir()} == set(FILE_NAMES.values())


ANSWERS = [
    ([], "gen", {"generate"}),
    ([], "fake", {"fake-greeting"}),
    (["presets"], "", {"list", "show"}),
    (["generate"], "--samp", set()),
    (["generate"], "--step", {"--steps"}),
    (["generate"], "--no-over", {"--no-overwrite"}),
    (["generate", "-m"], "open", {"opensora-v1.0", "opensora-v1.1", "opensora-v1.2"}),
    (["generate", "-m"], "au", {"auto"}),
    (["generate", "x", "--model"], "fa", {"fake"}),
    (["generate", "--res"], "72", {"720p"}),
    (["generate"], "--res=72", {"720p"}),
    (["generate", "-l"], "16", {"16s", "16x"}),
    (["generate", "--aspect-ratio"], "16:", {"16:9"}),
    (["generate", "--camera"], "pan", {"pan left", "pan right"}),
    (["generate", "--scheduler"], "r", {"rectified_flow"}),
    (["generate", "--dtype"], "b", {"bf16"}),
    (["generate", "--preset"], "por", {"portrait"}),
    (["generate", "--preset"], "fake", {"fake-long"}),
    (["generate", "--parallel"], "s", {"single"}),
    (["generate", "--attention"], "sd", {"sdpa"}),
    (["generate", "--vae"], "fa", {"fake"}),
    (["generate", "--text-encoder"], "fa", {"fake"}),
    (["plugins", "list", "--kind"], "mo", {"model"}),
    (["plugins", "show"], "fake-p", {"fake-parallel"}),
    (["presets", "show"], "reso", {"resolutions"}),
    (["presets", "list", "--kind"], "la", {"launch"}),
    (["completion"], "po", {"powershell"}),
    (["fake-greeting"], "--na", {"--name"}),
    (["generate", "-o"], "", set()),
]


@pytest.mark.parametrize(
    ("words", "unfinished", "expected"), ANSWERS, ids=[f"{' '.join(w)} {u}" for w, u, _ in ANSWERS]
)
def test_answers(words: list[str], unfinished: str, expected: set[str], fake_plugin) -> None:
    assert {value for value, _ in complete.completions(words, unfinished)} == expected


def test_help_is_short_enough_for_a_menu(fake_plugin) -> None:
    answers = dict(complete.completions(["generate"], "--"))
    assert answers["--steps"] == "sampling steps; more is slower and finer"
    assert not any("env:" in text for text in answers.values())


def test_the_protocol(sora, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_SORA_COMPLETE", "=gen")
    finished = sora()
    assert finished.out == "generate\tMake videos (or images) from text.\n"
    assert finished.code == 0


def test_a_failing_completion_says_nothing(sora, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(complete, "completions", lambda words, unfinished: 1 / 0)
    monkeypatch.setenv("_SORA_COMPLETE", "=")
    finished = sora()
    assert (finished.code, finished.out, finished.err) == (1, "", "")


def test_attention_backends_are_those_of_the_table() -> None:
    from sora_cli.acceleration import ATTENTION_BACKENDS
    from sora_cli.acceleration.attention import BACKENDS

    assert ("auto", *BACKENDS) == ATTENTION_BACKENDS
    assert [value for value, _ in complete.attention_backends("")] == list(ATTENTION_BACKENDS)


def test_resolutions_and_durations_are_those_of_the_tables() -> None:
    from sora_cli.presets import presets_folder

    resolutions = read_yaml(presets_folder() / "resolutions.yaml").data["resolutions"]
    assert [value for value, _ in complete.resolutions("")] == list(resolutions)
    assert ("2s", "51 frames") in complete.durations("")


def _need(shell: str) -> str:
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"{shell} is not installed")
    return path


@pytest.fixture
def sora_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `sora` that answers completion with this code, and otherwise prints the arguments it was run with."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "sora"
    program.write_text(
        f"""#!/bin/sh
if [ -n "${{_SORA_COMPLETE+x}}" ]; then exec "{sys.executable}" -m sora_cli "$@"; fi
printf 'RAN:'; for word in "$@"; do printf '<%s>' "$word"; done; echo ':END'
"""
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TERM", "dumb")
    Path("some-file.txt").touch()


# What is typed before Tab and Enter, and the arguments that the program then gets.
TYPED = [
    ("sora gene", "<generate>"),
    ("sora generate --res 72", "<generate><--res><720p>"),
    ("sora generate --res=72", "<generate><--res=720p>"),
    ("sora generate --aspect-ratio 16:", "<generate><--aspect-ratio><16:9>"),
    ("sora generate --aspect-ratio=16:", "<generate><--aspect-ratio=16:9>"),
    ("sora generate 'a cat' --camera 'pan l", "<generate><a cat><--camera><pan left>"),
    ("sora generate --camera pan\\ l", "<generate><--camera><pan left>"),
    ("sora plugins list --kind sched", "<plugins><list><--kind><scheduler>"),
    ("sora generate --out", "<generate><--output>"),
    ("sora generate --prompt-file some-f", "<generate><--prompt-file><some-file.txt>"),
]
SHELLS = {
    "bash": (["--norc", "--noprofile", "-i"], f"source '{COMMITTED / 'sora.bash'}'"),
    "zsh": (["-f", "-i"], f"autoload -Uz compinit && compinit -u; source '{COMMITTED / '_sora'}'"),
}


def _type_into(shell: str, lines: list[str]) -> list[str]:
    """Type lines into an interactive shell, each followed by Tab and Enter; the arguments that `sora` got."""
    import pty
    import select
    import time

    path = _need(shell)
    arguments, setup = SHELLS[shell]
    process, terminal = pty.fork()
    if process == 0:
        os.execv(path, [path, *arguments])
    seen = ""

    def wait_for(text: str, times: int) -> None:
        nonlocal seen
        end = time.monotonic() + 60
        while seen.count(text) < times:
            assert time.monotonic() < end, f"{shell} showed: {seen}"
            if select.select([terminal], [], [], 0.1)[0]:
                seen += os.read(terminal, 65536).decode(errors="replace")

    try:
        # Split in two so that the echo of the typed line does not count.
        os.write(terminal, f"{setup}; echo REA''DY\n".encode())
        wait_for("READY", 1)
        for count, line in enumerate(lines, 1):
            os.write(terminal, f"{line}\t\n".encode())
            wait_for(":END", count)
    finally:
        os.close(terminal)
        os.kill(process, 9)
        os.waitpid(process, 0)
    # A terminal breaks long lines.
    return re.findall(r"RAN:(.*?):END", seen.replace("\r", "").replace("\n", ""))


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("shell", SHELLS)
def test_tab_in_a_real_shell(shell: str, sora_on_path) -> None:
    assert _type_into(shell, [line for line, _ in TYPED]) == [arguments for _, arguments in TYPED]


FISH = [
    ("sora gene", {"generate"}),
    ("sora generate --res 72", {"720p"}),
    ("sora generate --res=72", {"--res=720p"}),
    ("sora generate --aspect-ratio 16:", {"16:9"}),
    ("sora generate 'a cat' --camera pa", {"pan right", "pan left"}),
    ("sora plugins list --kind sched", {"scheduler"}),
    ("sora generate --prompt-file some-f", {"some-file.txt"}),
]


def test_tab_in_fish(sora_on_path) -> None:
    fish = _need("fish")
    for line, answers in FISH:
        ask = f"source '{COMMITTED / 'sora.fish'}'; complete -C \"{line}\""
        finished = subprocess.run([fish, "--no-config", "-c", ask], capture_output=True, text=True, timeout=60)
        found = {answer.partition("\t")[0] for answer in finished.stdout.splitlines()}
        assert found == answers, (line, finished.stderr)


def test_powershell(sora_on_path) -> None:
    pwsh = _need("pwsh")
    ask = (
        f". '{COMMITTED / 'sora.ps1'}'; "
        "(TabExpansion2 'sora generate --res 72' 22).CompletionMatches | ForEach-Object CompletionText"
    )
    finished = subprocess.run([pwsh, "-NoProfile", "-Command", ask], capture_output=True, text=True, timeout=120)
    assert finished.stdout.split() == ["720p"]
