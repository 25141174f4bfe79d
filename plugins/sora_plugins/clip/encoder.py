"""Captions to vectors with the text half of CLIP (Radford et al. 2021, arXiv 2103.00020), through transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sora_cli.errors import SoraError
from sora_cli.plugin.protocols import TextEmbedding
from sora_cli.text.tokenizers import load_tokenizer

if TYPE_CHECKING:
    from sora_cli.weights.locate import LocatedWeights

PREFIX = "text_model."
#: Parts of a whole CLIP checkpoint that encoding text does not use.
UNUSED = ("vision_model.", "visual_projection.", "text_projection.", "logit_scale")
#: A table of 0, 1, 2, ... that old files carry.
POSITIONS = "embeddings.position_ids"
TOKENIZER_FILES = ("tokenizer.json", "vocab.json")


class CLIPEncoder:
    """The network and its tokenizer. A caption is one vector: the hidden state at its end token, not projected.

    Captions are not cleaned; the tokenizer lower-cases them.
    """

    def __init__(self, network: Any, tokenizer: Any) -> None:
        """network: the text transformer of a transformers CLIPTextModel; tokenizer: its tokenizer."""
        self.network, self.tokenizer = network, tokenizer
        self.max_tokens: int = network.embeddings.position_embedding.num_embeddings

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """Token ids (n, max_tokens) of captions; each row has an end token, padding follows it."""
        tokens = self.tokenizer(
            list(prompts),
            max_length=self.max_tokens,
            padding="max_length",
            truncation=True,
            add_special_tokens=True,
            return_tensors="pt",
        )
        ids: Tensor = tokens["input_ids"]
        return ids

    def tokens_cut(self, prompt: str) -> int:
        """How many tokens of a caption are not read."""
        return max(0, len(self.tokenizer(prompt)["input_ids"]) - self.max_tokens)

    @torch.inference_mode()
    def encode(self, prompts: Sequence[str]) -> TextEmbedding:
        """Tokenize and encode n captions: embeddings (n, 1, 1, D) and a mask (n, 1) of ones."""
        ids = self.tokenize(prompts).to(self.network.final_layer_norm.weight.device)
        _, pooled = self.hidden_states(ids)
        return TextEmbedding(pooled[:, None, None], ids.new_ones(len(ids), 1))

    def hidden_states(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The last hidden state (n, L, D), and that of the first end token (n, D).

        No mask: attention looks back only, so what follows the end token influences nothing before it. A configuration
        with the end token 2, as the published one, means the largest id; transformers does both.
        """
        out = self.network(input_ids=ids)
        return out.last_hidden_state, out.pooler_output

    def to(self, device: torch.device) -> CLIPEncoder:
        """Move the network."""
        self.network.to(device)
        return self

    def blocks(self) -> list[nn.Module]:
        """The transformer blocks in order."""
        return list(self.network.encoder.layers)


def load(weights: LocatedWeights, device: torch.device, dtype: torch.dtype) -> CLIPEncoder:
    """The encoder from a folder with the weights, config.json and the tokenizer; dtype: float32 or bfloat16.

    The weights may be those of the whole of CLIP. Raises SoraError for weights that do not fit, or a folder without
    tokenizer.
    """
    from sora_cli.weights.load import load_network

    config = read_config(weights)
    network = load_network(
        lambda: build(config), weights, what="the text encoder", device=device, dtype=dtype, map_keys=text_tensors
    )
    return CLIPEncoder(network, load_tokenizer(weights.folder, TOKENIZER_FILES))


def build(config: Any) -> nn.Module:
    """The text transformer; also on the meta device, where only its table of positions has values."""
    from transformers import CLIPTextModel

    model = CLIPTextModel(config)
    network: Any = getattr(model, "text_model", model)  # a part of its own before transformers 5
    positions = torch.arange(config.max_position_embeddings, device="cpu")[None]
    network.embeddings.register_buffer("position_ids", positions, persistent=False)
    return network


def read_config(weights: LocatedWeights) -> Any:
    """The architecture as transformers describes it, of the text half alone or inside that of the whole of CLIP.

    Raises SoraError when config.json is missing or of another kind.
    """
    from transformers import CLIPTextConfig

    values = weights.config()
    kind = values.get("model_type", "clip_text_model")
    sizes = values.get("text_config", values)
    if kind not in ("clip", "clip_text_model") or "hidden_size" not in sizes:
        found = f"of a {values['model_type']}" if "model_type" in values else "missing or empty"
        raise SoraError(f"{weights.folder} is no CLIP text encoder: its config.json is {found}")
    return CLIPTextConfig(**sizes)


def text_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the text transformer out of those of a file, by its own names."""
    chosen = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items() if not name.startswith(UNUSED)}
    chosen.pop(POSITIONS, None)
    return chosen
