"""Golden topic `ema`."""

from __future__ import annotations

import pytest
from checks import close
from loader import cases, load_tensors, read

from sora_cli.training.ema import Ema


@pytest.mark.parametrize("case", cases("ema", "ema"))
def test_ema(case):
    content, tensors = read("ema", "ema"), load_tensors("ema", "ema.safetensors")
    weights = {name.removeprefix("init."): tensor for name, tensor in tensors.items() if name.startswith("init.")}
    trainable = [name for name in content["shapes"] if name not in content["frozen"]]
    ema = Ema(weights, trainable, decay=case["decay"])
    for step in range(case["steps"]):
        ema.update({name: tensors[f"master.{step}.{name}"] for name in trainable})
        for name in content["shapes"]:
            close(content, ema.average[name], tensors[f"decay{case['decay']}.step{step}.{name}"], name)
    for name in set(weights) - set(content["shapes"]):  # buffers
        assert (ema.average[name] == weights[name]).all()
