"""The command that makes everything, in miniature: few small clips and updates, but every step, through the product."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module
from itertools import takewhile
from pathlib import Path

import pytest
import torch
from nano_miniature import call, quick_eigh
from safetensors.torch import load_file, save_file

from sora_cli.__main__ import main as sora_main
from sora_plugins.nano.config import MODEL_CONFIG
from sora_plugins.nano.making import __main__ as making
from sora_plugins.nano.making import autoencoder, upscaler
from sora_plugins.nano.model import build
from sora_plugins.nano.text import TABLE_FILE, VOCABULARY_FILE
from sora_plugins.nano.upscaler import UpscalerNetwork

BUCKETS = "data.bucket_config={144p: {1: [1.0, 2], 17: [1.0, 2]}}"
RENDERED = ["scenes render"] * 5
ONCE = ["text_table", "autoencoder fit", "autoencoder train"]
TRAINED = ["train extract", "train"] * 3
LAST = ["train export", "autoencoder train", "autoencoder export"]
UPSCALER = ["upscaler pairs", "upscaler train", "upscaler export"]


class Steps:
    """Runs the commands in this process, with smaller batches, and can be told to stop before one of them."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.stops_before: str | None = None

    def __call__(self, *words: object) -> None:
        module, *arguments = (str(word) for word in words[1:])
        script = module.rpartition(".")[2]
        verb = " ".join(takewhile(str.isalpha, arguments[:2]))
        name = verb if script == "sora_cli" else f"{script} {verb}".strip()
        if name == self.stops_before:
            raise SystemExit(1)
        self.names.append(name)
        if script == "sora_cli":
            more = ["--set", "data.workers=0", *(["--set", BUCKETS] if name == "train extract" else [])]
            more = more if name in ("train", "train extract") else []
            assert sora_main([*arguments, *more]) == 0
        elif script == "text_table":
            write_table(Path(arguments[arguments.index("-o") + 1]))
        else:
            call(import_module(module).main, *arguments)


def write_table(folder: Path) -> None:
    """A table of few words, of the width that the network takes."""
    folder.mkdir()
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "waterfall", "water", "the", "in", "score", "##s"]
    (folder / VOCABULARY_FILE).write_text("\n".join(pieces) + "\n")
    shape = (len(pieces), MODEL_CONFIG["caption_channels"])
    rows = torch.randint(-127, 128, shape, dtype=torch.int8, generator=torch.Generator().manual_seed(1))
    save_file({"rows": rows, "scales": torch.full((len(pieces),), 0.01)}, folder / TABLE_FILE)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    values = {"SHAPES": {"16:9": 0.6, "1:1": 0.4}, "FRAMES": 18, "HELD_OUT": 1, "PICTURES": 1, "CAPTIONS": 2}
    for name, value in values.items():
        monkeypatch.setattr(making, name, value)
    monkeypatch.setattr(torch.linalg, "eigh", quick_eigh(torch.linalg.eigh))
    monkeypatch.setattr(autoencoder, "CROP", 32)
    for name, small in {"SMALL": (32, 48), "BATCH": 1, "CROP": 16}.items():
        monkeypatch.setattr(upscaler, name, small)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def make(patch: pytest.MonkeyPatch, folder: Path, steps: Steps) -> None:
    patch.setattr(making, "run", steps)
    options = ("--clips", 5, "--steps", 8, "--decoder-steps", 2, "--pairs", 2, "--upscaler-steps", 2)
    call(making.main, "-o", folder, "--text-model", "encoder", *options)


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="needs torch.optim.Muon (torch 2.9)")
def test_everything_is_made_also_after_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps()
    steps.stops_before = "train export"
    with pytest.raises(SystemExit):
        make(monkeypatch, tmp_path, steps)
    assert steps.names == [*RENDERED, *ONCE, *TRAINED]
    counts = {stage: len(losses(tmp_path / f"run-{stage}")) for stage in making.STAGES}
    assert counts == {"stills": 1, "pieces": 2, "clips": 5}
    checkpoint = tmp_path / "run-clips" / "step-5" / "model.safetensors"
    before = checkpoint.read_bytes()

    again = Steps()
    make(monkeypatch, tmp_path, again)
    assert again.names == [*RENDERED, *TRAINED, *LAST, *UPSCALER]
    assert checkpoint.read_bytes() == before, "what is done is not made again"
    weights = {path.name: path for path in (tmp_path / "weights").iterdir()}
    networks = {"autoencoder.safetensors", "model.safetensors", "upscaler.safetensors"}
    assert weights.keys() == {*networks, TABLE_FILE, VOCABULARY_FILE}
    tensors = load_file(weights["model.safetensors"])
    build(MODEL_CONFIG).load_state_dict(tensors)
    assert tensors["spatial_blocks.0.attn.qkv.weight"].dtype == torch.bfloat16
    enlarging = load_file(weights["upscaler.safetensors"])
    UpscalerNetwork().load_state_dict(enlarging)
    assert enlarging["output.weight"].abs().max() > 0, "it was trained"
    mended, trained = (load_file(tmp_path / f"{name}-autoencoder.safetensors") for name in ("mended", "trained"))
    assert torch.equal(mended["basis"], trained["basis"])
    assert not torch.equal(mended["decoder.output.weight"], trained["decoder.output.weight"])


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="needs torch.optim.Muon (torch 2.9)")
def test_a_resumed_training_from_captions_equals_one_that_was_not_interrupted(tmp_path: Path) -> None:
    assert sora_main(["scenes", "render", "-o", "clips", "--count", "2", "--frames", "1", "--captions", "3"]) == 0
    preset = ["--preset", "nano-stills", "--set", "data.workers=0"]
    few = ["--set", "data.bucket_config={144p: {1: [1.0, 1]}}"]
    assert sora_main(["train", "extract", *preset, *few, "--data", "clips/clips.csv", "-o", "features"]) == 0
    for run, stops in (("whole", (4,)), ("resumed", (1, 4))):
        for stop in stops:
            length = ["--steps", str(stop), "--log-every", "1"]
            assert sora_main(["train", *preset, "--data", "features", "--run", run, *length]) == 0
    assert len(losses(Path("whole"))) == 4
    assert losses(Path("whole")) == losses(Path("resumed"))
    for name in ("model", "ema", "optimizer"):
        whole, resumed = (load_file(Path(run, "step-4", f"{name}.safetensors")) for run in ("whole", "resumed"))
        assert whole.keys() == resumed.keys()
        assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    assert any(name.startswith("momentum_buffer.") for name in whole)
    assert "momentum_buffer.spatial_blocks.0.mlp.fc1.weight" in whole
    assert "exp_avg.spatial_blocks.0.mlp.fc1.bias" in whole
