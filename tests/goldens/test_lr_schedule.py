"""Golden topic `lr_schedule`."""

from __future__ import annotations

import pytest
from loader import cases

from sora_cli.training.learning_rate import learning_rate


@pytest.mark.parametrize("case", cases("lr_schedule", "lr"))
def test_learning_rate(case):
    for update, rate in case["lr_of_step"]:
        assert learning_rate(case["base_lr"], update, case["warmup_steps"]) == pytest.approx(rate, rel=1e-12)
