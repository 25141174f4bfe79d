"""Golden topic `stdit1`: the network of Open-Sora 1.0, its inner values and its gradients."""

from __future__ import annotations

import pytest
from loader import cases
from stdit_cases import Cases, called, having

from sora_plugins.stdit.stdit1 import build
from sora_plugins.stdit.weights import map_stdit1

TOPIC = "stdit1"
INDEX = cases(TOPIC, "index")
CASES = Cases(TOPIC, build, map_stdit1)


@pytest.mark.parametrize("case", INDEX)
def test_forward(case):
    CASES.check_forward(case)


@pytest.mark.parametrize("case", called(INDEX, "base", "x_mask"))
def test_trace(case):
    CASES.check_trace(case)


@pytest.mark.parametrize("case", having(INDEX, "backward"))
def test_gradients(case):
    CASES.check_gradients(case)
