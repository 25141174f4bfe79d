"""Build the text table from a local folder of all-MiniLM-L6-v2 (Apache-2.0).

    python -m sora_plugins.nano.making.text_table --model FOLDER -o OUT_FOLDER

Half of each row comes from the model's input embeddings, the other half from its outputs for the piece alone and in
a few short contexts; each half is the leading principal components of its source. Networks trained on this table are
bound to it: a table built in any other way needs a new network. The same input gives the same file.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoModel, PreTrainedModel

from ..text import TABLE_FILE, VOCABULARY_FILE, make_tokenizer

WIDTH = 128
#: Where a piece is put, {} standing for it. Several contexts average out the odd senses of a lone word.
CONTEXTS = ("{}", "a photo of {}", "a video of {} in nature", "{} outdoors")


def raw_vectors(model: PreTrainedModel) -> Tensor:
    """The model's input embeddings, float32 [vocabulary, hidden]."""
    weight = cast(Tensor, model.get_input_embeddings().weight)
    return weight.detach().float().clone()


@torch.inference_mode()
def context_vectors(model: PreTrainedModel, tokenizer: Tokenizer, context: str, batch: int = 1024) -> Tensor:
    """Mean output of the model over a context with each piece put in, float32 [vocabulary, hidden]."""
    before, after = (tokenizer.encode(part, add_special_tokens=False).ids for part in context.split("{}"))
    head = torch.tensor([[tokenizer.token_to_id("[CLS]"), *before]])
    tail = torch.tensor([[*after, tokenizer.token_to_id("[SEP]")]])
    parts = []
    for ids in torch.arange(tokenizer.get_vocab_size()).split(batch):
        tokens = torch.cat([head.expand(len(ids), -1), ids[:, None], tail.expand(len(ids), -1)], dim=1)
        parts.append(model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state.mean(dim=1))
    return torch.cat(parts)


def principal(vectors: Tensor, width: int) -> Tensor:
    """Leading principal components, float32 [n, width], with mean square element 1.

    The sign of a component is free; the largest entry of each direction is made positive so that runs agree.
    """
    centred = (vectors - vectors.mean(dim=0)).double()
    directions = torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(1)[:, :width]
    largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
    result = centred @ (directions * largest.sign())
    return (result / result.square().mean().sqrt()).float()


def build(raw: Tensor, outputs: Tensor) -> Tensor:
    """The table before rounding, [vocabulary, WIDTH], from [vocabulary, hidden] and [contexts, vocabulary, hidden]."""
    # What a context adds to every piece alike says nothing about the piece.
    distilled = (outputs - outputs.mean(dim=1, keepdim=True)).mean(dim=0)
    return torch.cat([principal(raw, WIDTH // 2), principal(distilled, WIDTH // 2)], dim=1)


def quantise(table: Tensor) -> tuple[Tensor, Tensor]:
    """int8 rows and one float16 scale per row, so that row = rows * scale."""
    scales = (table.abs().amax(dim=1) / 127).clamp(min=1e-4).half()
    return (table / scales.float()[:, None]).round().clamp(-127, 127).to(torch.int8), scales


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Build the text table of nano.")
    parser.add_argument("--model", type=Path, required=True, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the table and the vocabulary")
    arguments = parser.parse_args()
    # One thread: sums in a fixed order, hence the same file each time.
    torch.set_num_threads(1)
    model = AutoModel.from_pretrained(arguments.model, add_pooling_layer=False, local_files_only=True).float().eval()
    tokenizer = make_tokenizer(arguments.model / VOCABULARY_FILE)
    outputs = torch.stack([context_vectors(model, tokenizer, context) for context in CONTEXTS])
    table = build(raw_vectors(model), outputs)
    rows, scales = quantise(table)
    arguments.output.mkdir(parents=True, exist_ok=True)
    save_file({"rows": rows, "scales": scales}, arguments.output / TABLE_FILE)
    shutil.copyfile(arguments.model / VOCABULARY_FILE, arguments.output / VOCABULARY_FILE)
    error = (rows.float() * scales.float()[:, None] - table).square().mean().sqrt()
    print(f"{len(rows)} rows of {rows.shape[1]}, rounding error {error:.4f} of element size 1")


if __name__ == "__main__":
    main()
