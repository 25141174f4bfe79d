"""Measuring the loss of clips: what is drawn for one depends on nothing but itself."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sora_cli.conditioning.frame_masks import MaskRatios
from sora_cli.config.train_schema import DataSection
from sora_cli.errors import SoraError
from sora_cli.evaluation.loss_buckets import LossBucket
from sora_cli.evaluation.loss_measure import LossMeter, loss_times
from sora_cli.launch.mesh import Team
from sora_cli.plugin.protocols import TextEmbedding
from sora_cli.training.dataset import KeptWorkers
from sora_cli.training.objective import Encoders, Objective
from sora_cli.training.source import ClipSource
from sora_cli.training.table import open_table
from sora_cli.video.io import write_video
from sora_plugins.rectified_flow.rectified_flow import RectifiedFlow

SEED = 3
BUCKET = ("144p", 5)


class SampledAutoencoder:
    """Means of blocks of 16 pixels, and noise from torch's generator."""

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        means = torch.nn.functional.avg_pool3d(pixels, (1, 16, 16))
        return means + 0.3 * torch.randn_like(means)


class Lengths:
    """A caption is its length."""

    def encode(self, texts: list[str]) -> TextEmbedding:
        values = torch.tensor([float(len(text)) for text in texts])
        return TextEmbedding(values.view(-1, 1, 1, 1), torch.ones(len(texts), 1))


def network(x: torch.Tensor, t: torch.Tensor, *, y: torch.Tensor, height: torch.Tensor, **_: Any) -> torch.Tensor:
    scale = (y.flatten() / 100 + height / 1000 + t / 1000).view(-1, 1, 1, 1, 1)
    return torch.cat([torch.sin(x * scale), x], dim=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight clips of two shapes, of 12 frames; the file of the last one is damaged."""
    folder, random = tmp_path_factory.mktemp("clips"), np.random.default_rng(0)
    with (folder / "clips.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "text", "num_frames", "height", "width"])
        for number in range(8):
            size = (144, 256) if number % 3 else (256, 144)
            frames = random.integers(0, 255, (12, *size, 3), dtype=np.uint8)
            write_video(folder / f"{number}.mp4", [frames], 24)
            table.writerow([f"{number}.mp4", "caption" * number or "none", 12, *size])
    (folder / "7.mp4").write_bytes(b"damaged")
    return folder


def meter(folder: Path, *, seed: int = SEED, max_bad: float = 0.5, masks=None, reference=False, team=None) -> LossMeter:
    table = open_table([str(folder / "clips.csv")], cache=folder / f"{seed}.arrow")
    return LossMeter(
        source=ClipSource(table, DataSection(workers=0), seed, None),
        objective=Objective(RectifiedFlow(), seed, masks),
        network=network,
        encoders=Encoders(SampledAutoencoder(), Lengths(), torch.device("cpu")),
        team=team or Team(),
        times=loss_times(1000.0, 3, reference=reference),
        reference=reference,
        max_bad_share=max_bad,
        workers=KeptWorkers(),
    )


@pytest.mark.parametrize("masks", [None, MaskRatios({"image_head": 0.3, "random": 0.3})], ids=["plain", "masked"])
def test_batches_change_nothing(folder: Path, masks):
    found = []
    for batch in (1, 2, 3, 8):
        torch.manual_seed(batch)
        found.append(meter(folder, masks=masks).measure(LossBucket(*BUCKET, batch)))
    first = found[0]
    assert first["clips"] == 7
    assert first["loss"] == pytest.approx(np.mean(first["losses"]))
    for other in found[1:]:
        assert other["losses"] == pytest.approx(first["losses"], rel=1e-6)
        assert {**other, "loss": 0, "losses": 0} == {**first, "loss": 0, "losses": 0}
    again = meter(folder, masks=masks, seed=SEED + 1).measure(LossBucket(*BUCKET, 2))
    assert again["losses"] != pytest.approx(first["losses"], rel=1e-4)


def test_frames_that_are_given_do_not_count(folder: Path):
    plain = meter(folder).measure(LossBucket(*BUCKET, 2))
    masked = meter(folder, masks=MaskRatios({"image_head": 1.0})).measure(LossBucket(*BUCKET, 2))
    assert masked["losses"] != pytest.approx(plain["losses"], rel=1e-4)


def test_processes_add_up(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Each of two measures its share; what one of them gathers has the result of a process alone."""
    alone = meter(folder).measure(LossBucket(*BUCKET, 2))
    shares: list[Any] = []
    monkeypatch.setattr(Team, "gather", lambda self, value: [*shares, shares.append(value) or value])
    for rank in range(2):
        found = meter(folder, team=Team(data_rank=rank, data_size=2)).measure(LossBucket(*BUCKET, 2))
    assert all(sums.counts[0] for sums, _ in shares)
    assert found["losses"] == pytest.approx(alone["losses"], rel=1e-6)
    assert found["clips"] == 7
    assert found["unreadable"] == alone["unreadable"]


def test_a_file_that_cannot_be_read_is_left_out_and_named(folder: Path, capsys):
    found = meter(folder).measure(LossBucket(*BUCKET, 3))
    assert [(one["row"], one["path"]) for one in found["unreadable"]] == [(7, "7.mp4")]
    assert "row 8, 7.mp4" in capsys.readouterr().err
    with pytest.raises(SoraError, match="1 of the 8 clips of 144p, 5 frames cannot be read") as error:
        meter(folder, max_bad=0.1).measure(LossBucket(*BUCKET, 3))
    assert "row 8, 7.mp4" in (error.value.hint or "")


def test_nothing_but_damaged_files(folder: Path):
    whole = meter(folder)
    whole.source.table.content = whole.source.table.content[7:]
    with pytest.raises(SoraError, match=r"of 1 clip of .* none can be read"):
        whole.measure(LossBucket(*BUCKET, 3))


def test_the_reference_draws_from_the_generator_in_order(folder: Path):
    """Done once more by hand: all batches at the first time, then all at the next."""
    bucket = LossBucket(*BUCKET, 2)
    of_reference = meter(folder, reference=True)
    torch.manual_seed(SEED)
    found = of_reference.measure(bucket)
    torch.manual_seed(SEED)
    plan, expected, count = of_reference.batches(bucket), [], 0
    for t in of_reference.times:
        total, count = 0.0, 0
        for batch in of_reference.source.load(
            plan, range(len(plan)), 0, dtype=torch.float32, pin_memory=False, skips_bad=True
        ):
            if not batch.rows:
                continue
            x = SampledAutoencoder().encode(batch.pixels)
            noise = torch.randn_like(x)
            height = torch.full((len(x),), float(batch.size[1])).bfloat16().float()
            y = Lengths().encode(batch.texts).embeddings
            s = t / 1000
            v = network((1 - s) * x + s * noise, torch.full((len(x),), t), y=y, height=height)[:, :3]
            total += float((v - (x - noise)).square().mean(dim=(1, 2, 3, 4)).sum())
            count += len(x)
        expected.append(total / count)
    assert of_reference.times == [250.0, 500.0, 752.0]
    assert found["losses"] == pytest.approx(expected, rel=1e-5)
    assert found["clips"] == count
