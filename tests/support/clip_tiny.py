"""Tiny CLIPs, the text encoder and the whole, with a real byte-pair tokenizer, in the files of the released ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

START, END = "<|startoftext|>", "<|endoftext|>"
LETTERS = "abcdefghijklmnopqrstuvwxyz.,"
MERGES = [("f", "o"), ("fo", "x</w>"), ("s", "n"), ("sn", "o"), ("sno", "w</w>")]


def make_tiny_clip(folder: Path, *, width: int = 16) -> None:
    """Write config.json, model.safetensors and the tokenizer's files; always the same bytes."""
    from safetensors.torch import save_file
    from transformers import CLIPTextConfig

    from sora_plugins.clip.encoder import PREFIX, build

    folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = {
        "model_type": "clip_text_model",
        "vocab_size": write_tokenizer(folder),
        "hidden_size": width,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 12,
        "hidden_act": "quick_gelu",
        "eos_token_id": 2,
        "bos_token_id": 0,
        "pad_token_id": 1,
    }
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    tensors = build(CLIPTextConfig(**config)).state_dict()
    save_file({PREFIX + name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")


def make_tiny_whole_clip(folder: Path) -> None:
    """A CLIP of random weights, with pictures of 32 pixels and vectors of 768 numbers."""
    from transformers import CLIPConfig, CLIPModel

    folder.mkdir(parents=True, exist_ok=True)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**small, "vocab_size": write_tokenizer(folder), "max_position_embeddings": 12, "eos_token_id": 2}
    config = CLIPConfig(
        text_config=text, vision_config={**small, "image_size": 32, "patch_size": 8}, projection_dim=768
    )
    torch.manual_seed(0)
    CLIPModel(config).save_pretrained(folder)


def write_tokenizer(folder: Path) -> int:
    """Write a tokenizer of letters and a few merges; returns its number of tokens. The end token is the largest id."""
    pieces = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), *("".join(pair) for pair in MERGES), START, END]
    (folder / "vocab.json").write_text(json.dumps({piece: index for index, piece in enumerate(pieces)}))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in MERGES)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    tokenizer = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return len(pieces)
