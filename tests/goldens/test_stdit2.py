"""Golden topic `stdit2`: the network of Open-Sora 1.1, its inner values and its gradients."""

from __future__ import annotations

import pytest
from loader import cases
from stdit_cases import Cases, called, having

from sora_plugins.stdit.stdit2 import build
from sora_plugins.stdit.weights import map_tensors

TOPIC = "stdit2"
INDEX = cases(TOPIC, "index")
CASES = Cases(TOPIC, build, map_tensors)


@pytest.mark.parametrize("case", INDEX)
def test_forward(case):
    CASES.check_forward(case)


@pytest.mark.parametrize("case", called(INDEX, "base", "x_mask"))
def test_trace(case):
    CASES.check_trace(case)


@pytest.mark.parametrize("case", having(INDEX, "backward"))
def test_gradients(case):
    CASES.check_gradients(case)
