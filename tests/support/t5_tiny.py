"""A tiny T5 v1.1 encoder with a real SentencePiece tokenizer, in the files of the released one."""

from __future__ import annotations

import io
import json
from pathlib import Path

import torch

TEXT = """
a the waterfall river forest mountain ocean wave fox cat dog snow rain fire city street night day
sunset dawn light camera motion score aesthetic pan left right tilt up down zoom in out static red
blue green white black golden over under through with of and slow fast flower meadow sky cloud star
moon sun tree leaf stone bridge boat bird fish
"""
WORDS = TEXT.split()


def make_tiny_t5(folder: Path, *, width: int = 32) -> None:
    """Write config.json, model.safetensors, spiece.model and the tokenizer's json files; always the same bytes."""
    from safetensors.torch import save_file
    from transformers import T5Config, T5EncoderModel

    folder.mkdir(parents=True, exist_ok=True)
    pieces = write_tokenizer(folder)
    config = {
        "model_type": "t5",
        "architectures": ["T5EncoderModel"],
        "vocab_size": pieces + 100,
        "d_model": width,
        "d_kv": 8,
        "d_ff": 40,
        "num_layers": 2,
        "num_heads": 4,
        "feed_forward_proj": "gated-gelu",
        "layer_norm_epsilon": 1e-6,
        "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128,
        "tie_word_embeddings": False,
        "pad_token_id": 0,
        "eos_token_id": 1,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    torch.manual_seed(0)
    network = T5EncoderModel(T5Config(**config))
    tensors = {name: tensor.clone().contiguous() for name, tensor in network.state_dict().items()}
    save_file(tensors, folder / "model.safetensors")


def write_tokenizer(folder: Path) -> int:
    """Train a SentencePiece model on `WORDS` and write it; returns its number of pieces."""
    import sentencepiece

    model = io.BytesIO()
    lines = [" ".join(WORDS[start : start + 6]) for start in range(len(WORDS) - 6)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines * 3),
        model_writer=model,
        vocab_size=120,
        model_type="unigram",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / "spiece.model").write_bytes(model.getvalue())
    special = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    tokenizer = {"tokenizer_class": "T5Tokenizer", "extra_ids": 100, "model_max_length": 512, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return len(sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()))
