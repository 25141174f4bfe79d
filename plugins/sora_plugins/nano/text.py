"""The frozen text encoder of nano: WordPiece and a table with one vector per piece, no network behind it.

Folder layout: `vocab.txt` (one piece a line, the bert-base-uncased vocabulary) and `text_table.safetensors` with
`rows` int8 [vocabulary, width] and `scales` float16 or float32 [vocabulary]; piece i means rows[i] * scales[i].
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from torch import Tensor

from sora_cli.plugin.protocols import TextEmbedding

if TYPE_CHECKING:
    from sora_cli.weights.locate import LocatedWeights

TABLE_FILE = "text_table.safetensors"
VOCABULARY_FILE = "vocab.txt"
#: Height of the sine position code; the table's elements have a standard deviation of about 1.
POSITION_AMPLITUDE = 0.3
MAX_TOKENS = 64


def make_tokenizer(vocabulary: Path) -> Tokenizer:
    """The bert-base-uncased tokenizer without its template: lower case, no accents, greedy longest match."""
    pieces = vocabulary.read_text(encoding="utf-8").rstrip("\n").split("\n")
    table = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(WordPiece(table, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=True
    )
    tokenizer.pre_tokenizer = BertPreTokenizer()
    return tokenizer


def position_code(length: int, width: int) -> Tensor:
    """Sine and cosine of the position at geometrically spaced periods, float32 [length, width]."""
    periods = 10_000 ** (torch.arange(width // 2, dtype=torch.float32) * 2 / width)
    angles = torch.arange(length, dtype=torch.float32)[:, None] / periods
    return POSITION_AMPLITUDE * torch.cat((angles.sin(), angles.cos()), dim=1)


class WordTableEncoder:
    """Turns prompts into rows of a fixed table plus a position code."""

    def __init__(self, tokenizer: Tokenizer, rows: Tensor, scales: Tensor) -> None:
        """rows: int8 [vocabulary, width]; scales: [vocabulary]."""
        if rows.dtype != torch.int8 or rows.ndim != 2 or scales.shape != rows.shape[:1]:
            raise ValueError(f"not a text table: rows {rows.dtype} {tuple(rows.shape)}, scales {tuple(scales.shape)}")
        if tokenizer.get_vocab_size() != len(rows):
            raise ValueError(f"vocabulary has {tokenizer.get_vocab_size()} pieces, table has {len(rows)} rows")
        self._tokenizer = tokenizer
        self._rows = rows
        self._scales = scales.float()
        end = tokenizer.token_to_id("[SEP]")
        if end is None:
            raise ValueError("vocabulary has no [SEP] piece")
        self._end = end

    @classmethod
    def load(cls, folder: Path) -> WordTableEncoder:
        """Read the vocabulary and the table from a folder."""
        folder = Path(folder)
        for name in (VOCABULARY_FILE, TABLE_FILE):
            if not (folder / name).is_file():
                raise FileNotFoundError(f"text encoder file missing: {folder / name}")
        tensors = load_file(folder / TABLE_FILE)
        return cls(make_tokenizer(folder / VOCABULARY_FILE), tensors["rows"], tensors["scales"])

    @property
    def width(self) -> int:
        """Length of a token's vector."""
        return self._rows.shape[1]

    @property
    def max_tokens(self) -> int:
        """Default number of tokens a prompt is padded or cut to."""
        return MAX_TOKENS

    def tokenize(self, prompt: str, max_tokens: int = MAX_TOKENS) -> list[int]:
        """Piece numbers of a prompt, cut to `max_tokens` with the end token, which even the empty prompt has."""
        # Special names in the text ("[SEP]") are ordinary characters here: users do not get to place them.
        return [*self._tokenizer.encode(prompt, add_special_tokens=False).ids[: max_tokens - 1], self._end]

    def tokens_cut(self, prompt: str) -> int:
        """How many pieces of a prompt are not read."""
        return max(0, len(self._tokenizer.encode(prompt, add_special_tokens=False).ids) - (MAX_TOKENS - 1))

    def encode(self, prompts: list[str], max_tokens: int = MAX_TOKENS) -> TextEmbedding:
        """Encode prompts, padded with zeros to `max_tokens`: embeddings [n, 1, L, width] and mask [n, L]."""
        if max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, not {max_tokens}")
        ids = torch.zeros(len(prompts), max_tokens, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for index, prompt in enumerate(prompts):
            pieces = self.tokenize(prompt, max_tokens)
            ids[index, : len(pieces)] = torch.tensor(pieces)
            mask[index, : len(pieces)] = 1
        vectors = self._rows[ids].float() * self._scales[ids][..., None] + position_code(max_tokens, self.width)
        return TextEmbedding((vectors * mask[..., None])[:, None], mask)


def load(weights: LocatedWeights, device: torch.device, dtype: torch.dtype) -> WordTableEncoder:
    """The encoder from a folder; it looks rows up on the CPU in float32 whatever the model's device and format."""
    return WordTableEncoder.load(weights.folder)
