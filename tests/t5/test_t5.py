"""The T5 text encoder with a tiny checkpoint, and the released one by its list of tensors."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from t5_tiny import make_tiny_t5
from torch import nn

from sora_cli.errors import SoraError
from sora_cli.weights.locate import LocatedWeights, locate_weights
from sora_plugins.t5.encoder import MAX_TOKENS, T5Encoder, encoder_tensors, load
from sora_plugins.t5.memory import encode_memory

CPU = torch.device("cpu")
MANIFEST = Path(os.environ.get("GOLDENS_DIR") or Path(__file__).parents[1] / "goldens").resolve() / "manifests"
PROMPTS = ["A fox in the snow. aesthetic score: 6.5.", "night"]


def located(folder: Path) -> LocatedWeights:
    weights = locate_weights(None, what="T5", override=str(folder))
    assert weights is not None
    return weights


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_tiny_t5(tmp_path / "t5")
    return tmp_path / "t5"


@pytest.fixture
def encoder(folder: Path) -> T5Encoder:
    return load(located(folder), CPU, torch.float32)


def test_embeddings_and_mask(encoder):
    embeddings, mask = encoder.encode(PROMPTS)
    assert embeddings.shape == (2, 1, MAX_TOKENS, 32)
    assert mask.shape == (2, MAX_TOKENS)
    assert mask.dtype == torch.int64
    ids, _ = encoder.tokenize(["night"])
    assert ids[0, int(mask[1].sum()) - 1] == 1, "the last real token is the end token"
    assert not embeddings[:, 0][mask == 0].any()
    assert embeddings[:, 0][mask == 1].abs().amin(dim=0).max() > 0


def test_a_prompt_does_not_depend_on_its_neighbours(encoder):
    together = encoder.encode(PROMPTS).embeddings[1]
    torch.testing.assert_close(together, encoder.encode(PROMPTS[1:]).embeddings[0], atol=1e-5, rtol=1e-5)


def test_shortening_the_padding_changes_nothing(encoder):
    embeddings, mask = encoder.encode(PROMPTS)
    ids, whole_mask = encoder.tokenize(["a fox in the snow. aesthetic score: 6.5.", "night"])
    with torch.inference_mode():
        whole = encoder.hidden_states(ids, whole_mask)
    torch.testing.assert_close(embeddings[:, 0][mask == 1], whole[mask == 1], atol=1e-5, rtol=1e-5)


def test_captions_are_cleaned(encoder):
    plain, shouted = (encoder.encode([text]).embeddings for text in ("a fox", "  A FOX https://example.com/x "))
    torch.testing.assert_close(plain, shouted)


def test_empty_and_long_prompts(encoder):
    assert int(encoder.encode([""]).mask.sum()) == 1
    long = "waterfall " * 400
    ids, mask = encoder.tokenize([long])
    assert bool(mask.all())
    assert ids[0, -1] == 1
    assert encoder.tokens_cut(long) == len(encoder.tokenizer(long)["input_ids"]) - MAX_TOKENS > 0
    assert encoder.tokens_cut("a fox") == 0


def test_number_formats(folder, encoder):
    exact = encoder.encode(PROMPTS).embeddings
    bf16 = load(located(folder), CPU, torch.bfloat16).encode(PROMPTS).embeddings
    int8 = load(located(folder), CPU, torch.int8).encode(PROMPTS).embeddings
    assert bf16.dtype == int8.dtype == torch.bfloat16
    for rough, limit in ((bf16, 0.02), (int8, 0.05)):
        assert (rough.float() - exact).norm() / exact.norm() < limit


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_the_embedding_table_is_in_memory_once(folder, dtype):
    network = load(located(folder), CPU, dtype).network
    table = network.shared.weight
    assert table.data_ptr() == network.encoder.embed_tokens.weight.data_ptr()
    network.double()
    assert network.shared.weight.data_ptr() == network.encoder.embed_tokens.weight.data_ptr(), "moved as one"


def test_blocks_are_in_order(encoder):
    assert [type(block).__name__ for block in encoder.blocks()] == ["T5Block", "T5Block"]


def test_one_embedding_table_and_a_decoder_are_fine(folder, encoder):
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("encoder.embed_tokens.weight", None)
    tensors["decoder.final_layer_norm.weight"] = torch.ones(32)
    tensors["lm_head.weight"] = torch.ones(4, 32)
    save_file(tensors, folder / "model.safetensors")
    again = load(located(folder), CPU, torch.float32)
    torch.testing.assert_close(again.encode(PROMPTS).embeddings, encoder.encode(PROMPTS).embeddings)


def test_other_tensors_are_refused(folder):
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "encoder.extra": torch.ones(1)}, folder / "model.safetensors")
    with pytest.raises(SoraError, match="do not fit the text encoder") as caught:
        load(located(folder), CPU, torch.float32)
    assert "encoder.extra" in (caught.value.hint or "")


@pytest.mark.parametrize("content", ["{}", '{"model_type": "clip_text_model", "d_model": 3}'])
def test_a_folder_of_something_else(folder, content):
    (folder / "config.json").write_text(content)
    with pytest.raises(SoraError, match="is no T5 text encoder"):
        load(located(folder), CPU, torch.float32)


def test_a_folder_without_tokenizer(folder):
    (folder / "spiece.model").unlink()
    with pytest.raises(SoraError, match="has no tokenizer"):
        load(located(folder), CPU, torch.float32)


def test_the_released_file_fits():
    """The network of the released config.json has exactly the tensors of the released file."""
    from transformers import T5Config, T5EncoderModel

    path = MANIFEST / "t5-v1_1-xxl.json"
    if not path.is_file():
        pytest.skip(f"golden manifest {path.name!r} is not in {MANIFEST}")
    manifest = json.loads(path.read_text())
    config = {key: value for key, value in manifest["model"].items() if key != "registry"}
    with torch.device("meta"):
        network = T5EncoderModel(T5Config(**config))
        released = encoder_tensors({name: torch.empty(shape) for name, shape in manifest["keys"].items()})
    ours = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    assert {name: list(tensor.shape) for name, tensor in released.items()} == ours
    assert len(ours) == manifest["tensors"]
    unique = sum(p.numel() for p in network.parameters())
    estimated = encode_memory({}, prompts=1, dtype="fp32").weights / 4
    assert unique in (manifest["unique_elements"], manifest["elements"])
    assert estimated == pytest.approx(manifest["unique_elements"], rel=0.001)
    linears = sum(module.weight.numel() for module in network.modules() if isinstance(module, nn.Linear))
    assert encode_memory({}, prompts=1, dtype="int8").weights == pytest.approx(linears + 2 * 32128 * 4096, rel=0.001)
