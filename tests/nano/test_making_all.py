"""The command that makes everything: its steps, in order, and what it does after an interruption."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sora_plugins.nano.making import __main__ as making


class Steps:
    """Stands in for the scripts: writes the files that each one would, and can be told to fail at one."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.fails_at: str | None = None

    def __call__(self, *words: object) -> None:
        texts = [str(word) for word in words]
        name = next(text.rpartition(".")[2] for text in texts if text.startswith(making.__package__))
        verb = texts[2] if name == "autoencoder" else ""
        self.names.append(f"{name} {verb}".strip())
        if verb == "train":
            Path(texts[4]).write_text(Path(texts[4]).read_text() + f" trained for {texts[texts.index('--steps') + 1]}")
        if self.names[-1] == self.fails_at:
            raise SystemExit(1)
        if "-o" not in texts or name in ("clips", "latents"):
            return
        output = Path(texts[texts.index("-o") + 1])
        if verb:
            source = Path(texts[4]).read_text() if verb == "export" else "fitted"
            output.write_text(source)
            return
        output.mkdir(exist_ok=True)
        for file in ("text_table.safetensors", "vocab.txt") if name == "text_table" else ("model.safetensors",):
            (output / file).write_text(file)


def make(patch: pytest.MonkeyPatch, folder: Path, steps: Steps) -> None:
    patch.setattr(making, "run", steps)
    patch.setattr(sys, "argv", ["making", "-o", str(folder), "--text-model", "encoder", "--decoder-steps", "7"])
    making.main()


ORDER = ["clips", "text_table", "autoencoder fit", "autoencoder train", "latents", "train", "autoencoder train"]


def test_all_steps_run_in_order_and_the_files_for_the_package_lie_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = Steps()
    make(monkeypatch, tmp_path, steps)
    assert steps.names == [*ORDER, "autoencoder export"]
    files = {path.name: path.read_text() for path in (tmp_path / "weights").iterdir()}
    assert files.keys() == {"autoencoder.safetensors", "model.safetensors", "text_table.safetensors", "vocab.txt"}
    assert files["autoencoder.safetensors"] == "fitted trained for 7 trained for 7"


def test_a_step_that_was_interrupted_starts_from_what_it_started_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = Steps()
    steps.fails_at = "autoencoder train"
    with pytest.raises(SystemExit):
        make(monkeypatch, tmp_path, steps)
    again = Steps()
    make(monkeypatch, tmp_path, again)
    assert again.names == ["clips", *ORDER[3:], "autoencoder export"], "what is done is not made again"
    made = (tmp_path / "weights" / "autoencoder.safetensors").read_text()
    assert made == "fitted trained for 7 trained for 7"
