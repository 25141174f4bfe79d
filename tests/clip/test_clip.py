"""The CLIP text encoder with a tiny checkpoint, and the released one by its list of tensors."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from clip_tiny import make_tiny_clip
from safetensors.torch import load_file, save_file

from sora_cli.errors import SoraError
from sora_cli.weights.locate import LocatedWeights, locate_weights
from sora_plugins.clip import sora_text_encoders
from sora_plugins.clip.encoder import CLIPEncoder, build, load, text_tensors
from sora_plugins.clip.memory import encode_memory

CPU = torch.device("cpu")
MANIFEST = Path(os.environ.get("GOLDENS_DIR") or Path(__file__).parents[1] / "goldens").resolve() / "manifests"
PROMPTS = ["a fox", "snow."]


def located(folder: Path) -> LocatedWeights:
    weights = locate_weights(None, what="CLIP", override=str(folder))
    assert weights is not None
    return weights


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_tiny_clip(tmp_path / "clip")
    return tmp_path / "clip"


@pytest.fixture
def encoder(folder: Path) -> CLIPEncoder:
    return load(located(folder), CPU, torch.float32)


def test_a_caption_is_the_state_at_its_first_end_token(encoder):
    embeddings, mask = encoder.encode(PROMPTS)
    assert embeddings.shape == (2, 1, 1, 16)
    assert mask.tolist() == [[1], [1]]
    assert mask.dtype == torch.int64
    ids = encoder.tokenize(PROMPTS)
    assert ids.shape == (2, 12)
    end = encoder.tokenizer.eos_token_id
    assert ids[0].tolist() == [end - 1, *encoder.tokenizer("a fox")["input_ids"][1:-1], *[end] * 9]
    hidden, _ = encoder.hidden_states(ids)
    first = (ids == end).int().argmax(dim=1)
    assert torch.equal(embeddings[:, 0, 0], hidden[torch.arange(2), first])


def test_padding_and_letter_case_change_nothing(encoder):
    short = torch.tensor(encoder.tokenizer(["a fox"])["input_ids"])
    alone = encoder.hidden_states(short)[1]
    torch.testing.assert_close(encoder.encode(["A FOX"]).embeddings[:, 0, 0], alone, atol=1e-6, rtol=1e-5)


def test_empty_and_long_captions(encoder):
    end = encoder.tokenizer.eos_token_id
    assert encoder.tokenize([""])[0].tolist() == [end - 1, *[end] * 11]
    long = "fox " * 20
    ids = encoder.tokenize([long])
    assert ids.shape == (1, 12)
    assert ids[0, -1] == end
    assert (ids == end).sum() == 1
    assert encoder.tokens_cut(long) == 22 - 12
    assert encoder.tokens_cut("fox " * 10) == 0


def test_bf16(folder, encoder):
    exact = encoder.encode(PROMPTS).embeddings
    rough = load(located(folder), CPU, torch.bfloat16).encode(PROMPTS).embeddings
    assert rough.dtype == torch.bfloat16
    assert 0 < (rough.float() - exact).norm() / exact.norm() < 0.03


def test_the_whole_of_clip_is_fine(folder, encoder):
    tensors = load_file(folder / "model.safetensors")
    tensors["text_model.embeddings.position_ids"] = torch.arange(12)[None]
    for name in ("vision_model.post_layernorm.weight", "visual_projection.weight", "logit_scale"):
        tensors[name] = torch.ones(3)
    save_file(tensors, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"model_type": "clip", "text_config": config}))
    again = load(located(folder), CPU, torch.float32)
    assert torch.equal(again.encode(PROMPTS).embeddings, encoder.encode(PROMPTS).embeddings)


def test_blocks_are_in_order(encoder):
    assert [type(block).__name__ for block in encoder.blocks()] == ["CLIPEncoderLayer", "CLIPEncoderLayer"]


def test_other_tensors_are_refused(folder):
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "text_model.extra": torch.ones(1)}, folder / "model.safetensors")
    with pytest.raises(SoraError, match="do not fit the text encoder") as caught:
        load(located(folder), CPU, torch.float32)
    assert "extra" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("content", "problem"), [("{}", "missing or empty"), ('{"model_type": "t5", "hidden_size": 3}', "of a t5")]
)
def test_a_folder_of_something_else(folder, content, problem):
    (folder / "config.json").write_text(content)
    with pytest.raises(SoraError, match=f"is no CLIP text encoder: its config.json is {problem}"):
        load(located(folder), CPU, torch.float32)


def test_a_folder_without_tokenizer(folder):
    (folder / "vocab.json").unlink()
    with pytest.raises(SoraError, match="has no tokenizer"):
        load(located(folder), CPU, torch.float32)


def test_the_released_file_fits():
    """The network of the released config.json has exactly the tensors of the released file, and the planned size."""
    from transformers import CLIPTextConfig

    path = MANIFEST / "clip-vit-base-patch32-text.json"
    if not path.is_file():
        pytest.skip(f"golden manifest {path.name!r} is not in {MANIFEST}")
    manifest = json.loads(path.read_text())
    config = {key: value for key, value in manifest["model"].items() if key != "registry"}
    with torch.device("meta"):
        ours = build(CLIPTextConfig(**config)).state_dict()
        released = text_tensors({name: torch.empty(shape) for name, shape in manifest["keys"].items()})
    assert {name: tensor.shape for name, tensor in ours.items()} == {n: tensor.shape for n, tensor in released.items()}
    assert len(ours) == manifest["tensors"]
    assert encode_memory({}, prompts=1, dtype="fp32").weights == 4 * manifest["elements"]
    assert encode_memory({"text_config": config}, prompts=1, dtype="bf16").weights == 2 * manifest["elements"]
    assert sora_text_encoders()[0].width == config["hidden_size"]
