"""Prompts to embeddings with T5 v1.1 (Raffel et al. 2020, arXiv 1910.10683), through transformers."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sora_cli.errors import SoraError
from sora_cli.plugin.protocols import TextEmbedding
from sora_cli.text.cleaning import clean_caption
from sora_cli.text.tokenizers import load_tokenizer

if TYPE_CHECKING:
    from sora_cli.weights.locate import LocatedWeights

MAX_TOKENS = 300
SHARED, EMBEDDING = "shared.weight", "encoder.embed_tokens.weight"
#: Parts of a whole T5 checkpoint that encoding does not use.
UNUSED = ("decoder.", "lm_head.")
TOKENIZER_FILES = ("spiece.model", "tokenizer.json")


class T5Encoder:
    """The network and its tokenizer. Embeddings of padding are zero; the models never look at them."""

    def __init__(self, network: Any, tokenizer: Any, *, max_tokens: int = MAX_TOKENS) -> None:
        """network: a transformers T5EncoderModel; tokenizer: its tokenizer."""
        self.network, self.tokenizer, self.max_tokens = network, tokenizer, max_tokens

    def tokenize(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids and mask (n, max_tokens) of prompts that are cleaned already; each row has an end token."""
        tokens = self.tokenizer(
            list(prompts),
            max_length=self.max_tokens,
            padding="max_length",
            truncation=True,
            add_special_tokens=True,
            return_attention_mask=True,
            return_tensors="pt",
        )
        return tokens["input_ids"], tokens["attention_mask"]

    def tokens_cut(self, prompt: str) -> int:
        """How many tokens of a prompt are not read."""
        return max(0, len(self.tokenizer(clean_caption(prompt))["input_ids"]) - self.max_tokens)

    @torch.inference_mode()
    def encode(self, prompts: Sequence[str]) -> TextEmbedding:
        """Clean, tokenize and encode n prompts: embeddings (n, 1, max_tokens, D), mask (n, max_tokens)."""
        ids, mask = self.tokenize([clean_caption(prompt) for prompt in prompts])
        longest = int(mask.sum(dim=1).max())
        device = self.network.encoder.final_layer_norm.weight.device
        hidden = self.hidden_states(ids[:, :longest].to(device), mask[:, :longest].to(device))
        embeddings = hidden.new_zeros(len(ids), 1, self.max_tokens, hidden.shape[-1])
        embeddings[:, 0, :longest] = hidden * mask[:, :longest, None].to(hidden)
        return TextEmbedding(embeddings, mask.to(device))

    def hidden_states(self, ids: Tensor, mask: Tensor) -> Tensor:
        """The last hidden state (n, L, D); positions beyond the mask influence no other."""
        hidden: Tensor = self.network(input_ids=ids, attention_mask=mask).last_hidden_state
        return hidden

    def to(self, device: torch.device) -> T5Encoder:
        """Move the network."""
        self.network.to(device)
        return self

    def blocks(self) -> list[nn.Module]:
        """The transformer blocks in order."""
        return list(self.network.encoder.block)


def load(
    weights: LocatedWeights, device: torch.device, dtype: torch.dtype, *, max_tokens: int = MAX_TOKENS
) -> T5Encoder:
    """The encoder from a folder with the weights, config.json and the tokenizer.

    max_tokens: what prompts are cut and padded to. dtype: float32, bfloat16, or int8 for linear layers with 8-bit
    weights that compute in bfloat16. Raises SoraError for weights that do not fit or a folder without tokenizer.
    """
    from transformers import T5EncoderModel

    from sora_cli.acceleration.quantize import quantize_linears, quantize_tensors
    from sora_cli.weights.load import load_network

    config = read_config(weights)
    is_int8 = dtype == torch.int8

    def build() -> nn.Module:
        network = T5EncoderModel(config)
        network.set_input_embeddings(network.shared)  # one module with two names: moved as one, in memory once
        return quantize_linears(network) if is_int8 else network

    def map_keys(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        tensors = encoder_tensors(tensors)
        return quantize_tensors(tensors, quantized_names(config)) if is_int8 else tensors

    network = load_network(
        build,
        weights,
        what="the text encoder",
        # Quantised in main memory, so that the device never holds the weights in full width.
        device=torch.device("cpu") if is_int8 else device,
        dtype=torch.bfloat16 if is_int8 else dtype,
        map_keys=map_keys,
    )
    return T5Encoder(network.to(device), load_tokenizer(weights.folder, TOKENIZER_FILES), max_tokens=max_tokens)


#: The encoder for models that were trained on shorter texts.
load_120 = functools.partial(load, max_tokens=120)
load_200 = functools.partial(load, max_tokens=200)


def read_config(weights: LocatedWeights) -> Any:
    """The architecture as transformers describes it; SoraError when config.json is missing or of another kind."""
    from transformers import T5Config

    values = weights.config()
    if values.get("model_type", "t5") != "t5" or "d_model" not in values:
        kind = f"of a {values['model_type']}" if "model_type" in values else "missing or empty"
        raise SoraError(f"{weights.folder} is no T5 text encoder: its config.json is {kind}")
    return T5Config(**values)


def encoder_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the encoder out of those of a file. Its embedding table, stored under one name or both, is one."""
    chosen = {name: tensor for name, tensor in tensors.items() if not name.startswith(UNUSED)}
    table = chosen.get(SHARED, chosen.get(EMBEDDING))
    return chosen if table is None else {**chosen, SHARED: table, EMBEDDING: table}


def quantized_names(config: Any) -> set[str]:
    """Names of the weights that are kept in 8 bits."""
    from transformers import T5EncoderModel

    with torch.device("meta"):
        network = T5EncoderModel(config)
    return {f"{name}.weight" for name, module in network.named_modules() if isinstance(module, nn.Linear)}
