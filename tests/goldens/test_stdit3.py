"""Golden topic `stdit3`: the whole network, its inner values and its gradients."""

from __future__ import annotations

import pytest
import torch
from loader import cases
from stdit_cases import Cases, arguments, called, having

from sora_plugins.stdit.stdit3 import build

TOPIC = "stdit3"
INDEX = cases(TOPIC, "index")
CASES = Cases(TOPIC, build)


@pytest.mark.parametrize("case", INDEX)
def test_forward(case):
    CASES.check_forward(case)


@pytest.mark.parametrize("case", called(INDEX, "base", "x_mask"))
def test_trace(case):
    CASES.check_trace(case)


@pytest.mark.parametrize("case", having(INDEX, "backward"))
def test_gradients(case):
    CASES.check_gradients(case)


@pytest.mark.parametrize("case", having(INDEX, "reference_bf16_rel_l2_error"))
def test_bfloat16(case):
    """Times, sizes and position codes stay in float32, so the error is below the reference's own (0.0095)."""
    tensors = CASES.tensors(case)
    model = CASES.load_network(case).bfloat16()
    with torch.no_grad():
        out = model(**arguments(case, tensors))
    assert out.dtype == torch.float32
    error = ((out - tensors["out"]).norm() / tensors["out"].norm()).item()
    assert 0 < error < case["reference_bf16_rel_l2_error"]
