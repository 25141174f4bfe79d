"""Golden topic `t5_encoder`: a tiny T5 v1.1 through our loader."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from checks import check_tensors
from loader import cases, goldens_dir, load_tensors, read
from t5_tiny import write_tokenizer

from sora_cli.weights.locate import locate_weights
from sora_plugins.t5.encoder import load

TOPIC = "t5_encoder"


@pytest.mark.parametrize("case", cases(TOPIC, "encoder"))
def test_encoder(case, tmp_path: Path):
    described = read(TOPIC, "encoder")
    (tmp_path / "config.json").write_text(json.dumps(described["config"]))
    (tmp_path / "model.safetensors").write_bytes((goldens_dir() / TOPIC / described["weights"]).read_bytes())
    write_tokenizer(tmp_path)
    weights = locate_weights(None, what="T5", override=str(tmp_path))
    encoder = load(weights, torch.device("cpu"), torch.float32)
    tensors = load_tensors(TOPIC, described["tensors"])
    inputs = {name: tensors[key] for name, key in case["inputs"].items()}
    with torch.inference_mode():
        hidden = encoder.hidden_states(inputs["input_ids"], inputs["attention_mask"])
    check_tensors(case, tensors, {"last_hidden_state": hidden})
