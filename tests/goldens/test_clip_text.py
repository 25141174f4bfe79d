"""Golden topic `clip_text`: a tiny CLIP text encoder through our loader, with both rules for the end token."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from checks import check_tensors
from clip_tiny import write_tokenizer
from loader import cases, goldens_dir, load_tensors, read

from sora_cli.weights.locate import locate_weights
from sora_plugins.clip.encoder import load

TOPIC = "clip_text"
PARAMETERS = [
    pytest.param(group, *parameter.values, id=parameter.id, marks=parameter.marks)
    for group in ("legacy_eos", "eos_id")
    for parameter in cases(TOPIC, group)
]


@pytest.mark.parametrize(("group", "case"), PARAMETERS)
def test_encoder(group: str, case, tmp_path: Path):
    described = read(TOPIC, group)
    (tmp_path / "config.json").write_text(json.dumps(described["config"]))
    (tmp_path / "model.safetensors").write_bytes((goldens_dir() / TOPIC / described["weights"]).read_bytes())
    write_tokenizer(tmp_path)
    weights = locate_weights(None, what="CLIP", override=str(tmp_path))
    encoder = load(weights, torch.device("cpu"), torch.float32)
    tensors = load_tensors(TOPIC, described["tensors"])
    with torch.inference_mode():
        hidden, pooled = encoder.hidden_states(tensors[case["inputs"]["input_ids"]])
    check_tensors(case, tensors, {"last_hidden_state": hidden, "pooler_output": pooled})
