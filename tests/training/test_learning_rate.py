"""The learning rate after its warm-up: constant, or falling to a share of it."""

from __future__ import annotations

import pytest

from sora_cli.config.train_schema import TrainConfig
from sora_cli.errors import UsageError
from sora_cli.tasks.train import check_optimizer
from sora_cli.training.learning_rate import Decay, decay_of, learning_rate


@pytest.mark.parametrize(
    ("kind", "rates"),
    [("linear", [2.0, 2.0, 2.0, 1.55, 1.1, 0.65]), ("cosine", [2.0, 2.0, 2.0, 1.736396, 1.1, 0.463604])],
)
def test_it_falls_from_a_share_of_the_updates_on(kind, rates):
    decay = Decay(kind, steps=60, start=1 / 3, final=0.1)
    assert [learning_rate(2.0, update, None, decay) for update in range(0, 60, 10)] == pytest.approx(rates)
    assert learning_rate(2.0, 60, None, decay) == pytest.approx(0.2)
    assert learning_rate(2.0, 75, None, decay) == pytest.approx(0.2)


def test_the_warm_up_comes_on_top():
    decay = Decay("linear", steps=10, start=0.0, final=0.0)
    assert [learning_rate(1.0, update, 3, decay) for update in range(4)] == pytest.approx([0.25, 0.45, 0.6, 0.7])


def config(**sections):
    return TrainConfig.model_validate(sections)


def test_settings():
    falling = {"schedule": "linear", "decay_start": 0.25, "decay_final": 0.5}
    assert decay_of(config(optimizer=falling, run={"steps": 8})) == Decay("linear", 8, 0.25, 0.5)
    assert decay_of(config(run={"steps": 8})) is None
    with pytest.raises(UsageError, match=r"run\.steps does not say"):
        check_optimizer(config(optimizer=falling))
    check_optimizer(config(optimizer=falling, run={"steps": 8}))
    check_optimizer(config())


def test_settings_of_muon():
    muon = {"name": "muon", "matrix_learning_rate": 1e-3}
    check_optimizer(config(optimizer=muon))
    check_optimizer(config(optimizer=muon, hardware={"sharding": "zero2"}))  # of one process nothing is cut
    for sharding in ("zero2", "zero3"):
        with pytest.raises(UsageError, match=f"--sharding {sharding} cuts"):
            check_optimizer(config(optimizer=muon, hardware={"sharding": sharding, "gpus": 2}))
    with pytest.raises(UsageError, match=r"matrix_learning_rate is Muon's"):
        check_optimizer(config(optimizer={"matrix_learning_rate": 1e-3}))
