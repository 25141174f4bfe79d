"""The training loop: epochs of different length, what is validated, and the log of a run that goes on."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sora_cli.config.train_schema import DataSection, TrainConfig
from sora_cli.errors import SoraError, UsageError
from sora_cli.launch.mesh import Team
from sora_cli.tasks.train_plan import clip_source, validation_source
from sora_cli.training.buckets import BucketTable
from sora_cli.training.dataset import Batch
from sora_cli.training.engine import Engine, EngineOptions
from sora_cli.training.loop import MOST_EMPTY_EPOCHS, TrainingLoop
from sora_cli.training.metrics import Metrics, read_metrics


class Source:
    """Batches of one number; lengths: micro-batches of each epoch, the last one for all later ones."""

    def __init__(self, lengths, *, has_chance=True):
        self.lengths, self.has_chance, self.planned = lengths, has_chance, 0

    def plan(self, epoch, *, num_ranks, start=0):
        self.planned += 1
        length = self.lengths[min(epoch, len(self.lengths) - 1)]
        plan = SimpleNamespace(num_steps=lambda ranks, done: max(length - done, 0) // ranks)
        return type("Plan", (SimpleNamespace,), {"__len__": lambda self: length})(**vars(plan))

    def load(self, plan, numbers, epoch, **options):
        for number in numbers:
            yield Batch(number, torch.ones(1, 3, 1, 1, 1), ["x"], torch.ones(1), [0], [])


def loop_of(folder, source, **run):
    data = {"run": {"log_every": 1, "checkpoint_every": 0, **run}, "model": {"dtype": "fp32"}}
    network = nn.Linear(1, 1)
    encoded = SimpleNamespace(num_positions=1)
    return TrainingLoop(
        config=TrainConfig.model_validate(data),
        source=source,
        engine=Engine(network, EngineOptions()),
        encoders=SimpleNamespace(device=torch.device("cpu"), encode=lambda batch, seed, *, update: encoded),
        objective=SimpleNamespace(losses=lambda model, encoded, epoch: model(torch.ones(1, 1)).square().sum()[None]),
        team=Team(),
        folder=folder,
        identity={},
        documents={},
    )


def epochs(folder):
    return [row["epoch"] for row in read_metrics(folder)]


def test_an_epoch_that_chance_leaves_empty_is_passed_over(tmp_path):
    loop_of(tmp_path, Source([0, 2, 0, 0, 1, 0]), epochs=6).run()
    assert epochs(tmp_path) == [1, 1, 4]


@pytest.mark.parametrize(("has_chance", "times"), [(True, MOST_EMPTY_EPOCHS), (False, 1)])
def test_no_batch_at_all(tmp_path, has_chance, times):
    source = Source([0], has_chance=has_chance)
    with pytest.raises(SoraError, match="0 whole micro-batches"):
        loop_of(tmp_path, source).run()
    assert source.planned == times
    with pytest.raises(SoraError, match="0 whole micro-batches"):  # and where there are fewer epochs than that
        loop_of(tmp_path, Source([0], has_chance=has_chance), epochs=1).run()


@pytest.mark.parametrize(
    ("entry", "has_chance"),
    [([1.0, 2], False), ([0.0, None], False), ([[1.0, 1.0], 2], False), ([0.5, 2], True), ([[1.0, 0.5], 2], True)],
)
def test_buckets_with_chance(entry, has_chance):
    assert BucketTable({"144p": {17: entry, 1: [1.0, 2]}}).has_chance is has_chance


def test_a_validation_without_a_clip_in_a_bucket_is_refused(tmp_path):
    head = "path,text,num_frames,height,width\n"
    (tmp_path / "t.csv").write_text(f"{head}a.png,a,1,144,256\n")
    (tmp_path / "small.csv").write_text(f"{head}b.png,b,1,20,20\n")
    data = DataSection(tables=(str(tmp_path / "t.csv"),), bucket_config={"144p": {1: [1.0, 2]}})
    source = clip_source(data, 0, tmp_path / "table")
    with pytest.raises(UsageError, match=r"no clip of .*small\.csv is in a bucket"):
        validation_source([str(tmp_path / "small.csv")], source, tmp_path / "validation")
    assert len(validation_source([str(tmp_path / "t.csv")], source, tmp_path / "validation").table) == 1


def test_tensorboard_forgets_updates_that_are_made_again(tmp_path):
    pytest.importorskip("tensorboard", reason="the extra train")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for done, losses in ((0, [1.0, 2.0, 3.0]), (1, [4.0])):  # the first run was killed, its state is of update 1
        metrics = Metrics(tmp_path, done, tensorboard=True)
        metrics.write([{"step": done + index, "loss": loss} for index, loss in enumerate(losses, 1)])
        metrics.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 1.0), (2, 4.0)]
