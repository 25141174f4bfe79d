"""The word table: BERT's word pieces, and vectors that are what the file says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sora_plugins.nano import text
from sora_plugins.nano.making.text_table import principal, quantise
from sora_plugins.nano.text import WordTableEncoder, make_tokenizer, position_code

WEIGHTS = Path(text.__file__).parent / "weights"
VOCABULARY = WEIGHTS / text.VOCABULARY_FILE
needs_vocabulary = pytest.mark.skipif(not VOCABULARY.is_file(), reason="weights/vocab.txt is not there")

TRICKY = [
    "",
    "   ",
    "a waterfall",
    "Héllo WÖRLD, naïve café!",
    "don't-stop... [SEP] [MASK] $5.00 (50%)",
    "unaffable waterfalls unbelievably antidisestablishmentarianism",
    "漢字かな and 한국어",
    "ﬁne ½ ² ß ı İ",
    "tab\tnew\nline\u00a0nbsp\u200bzero\u0000null\ufffd",
    "x" * 101,
    "🙂 emoji 🌊",
    "e\u0301 combining, soft\u00adhyphen",
    "ÅNGSTRÖM",
    "a,b;c:d!e?f/g\\h|i",
]


@needs_vocabulary
@pytest.mark.parametrize(
    ("prompt", "pieces"),
    [
        ("unaffable", ["una", "##ffa", "##ble"]),  # the example of BERT's own tests, with the released vocabulary
        ("Héllo WÖRLD!", ["hello", "world", "!"]),
        ("don't", ["don", "'", "t"]),
        ("[SEP]", ["[", "sep", "]"]),
        ("水山", ["水", "山"]),
        ("x" * 101, ["[UNK]"]),
        ("", []),
    ],
)
def test_pieces(prompt: str, pieces: list[str]) -> None:
    assert make_tokenizer(VOCABULARY).encode(prompt, add_special_tokens=False).tokens == pieces


@needs_vocabulary
def test_pieces_are_those_of_bert(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    shutil.copy(VOCABULARY, tmp_path / "vocab.txt")
    bert = transformers.BertTokenizer.from_pretrained(str(tmp_path), do_lower_case=True)
    ours = make_tokenizer(VOCABULARY)
    for prompt in TRICKY:
        # Special names in a prompt are the one intended difference: for BERT they are control tokens.
        plain = prompt.replace("[SEP] [MASK]", "")
        assert ours.encode(plain, add_special_tokens=False).tokens == bert.tokenize(plain), prompt


PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "water", "##fall", "red"]


@pytest.fixture
def encoder(tmp_path: Path) -> WordTableEncoder:
    """A table of eight pieces, four values each."""
    folder = tmp_path / "table"
    folder.mkdir()
    (folder / text.VOCABULARY_FILE).write_text("\n".join(PIECES) + "\n")
    rows = torch.arange(32, dtype=torch.int8).view(8, 4)
    save_file({"rows": rows, "scales": torch.full((8,), 0.5)}, folder / text.TABLE_FILE)
    return WordTableEncoder.load(folder)


def test_encoding_is_rows_times_scales_plus_position(encoder: WordTableEncoder) -> None:
    embeddings, mask = encoder.encode(["a red waterfall"], max_tokens=8)
    ids = torch.tensor([4, 7, 5, 6, 3])  # a red water ##fall [SEP]
    wanted = (torch.arange(32.0).view(8, 4) * 0.5)[ids] + position_code(8, 4)[:5]
    assert embeddings.shape == (1, 1, 8, 4)
    assert torch.equal(mask, torch.tensor([[1, 1, 1, 1, 1, 0, 0, 0]]))
    assert torch.equal(embeddings[0, 0, :5], wanted)
    assert not embeddings[0, 0, 5:].any()


def test_long_prompts_keep_the_end_token_and_empty_ones_have_it(encoder: WordTableEncoder) -> None:
    assert encoder.tokenize("a " * 50, max_tokens=6) == [4, 4, 4, 4, 4, 3]
    assert encoder.tokenize("", max_tokens=6) == [3]
    _, mask = encoder.encode(["", "a " * 50], max_tokens=6)
    assert mask.sum(dim=1).tolist() == [1, 6]


def test_a_prompt_does_not_depend_on_the_others(encoder: WordTableEncoder) -> None:
    alone, _ = encoder.encode(["red"])
    together, _ = encoder.encode(["a red waterfall", "red"])
    assert torch.equal(alone[0], together[1])


def test_position_code_is_the_sine_code() -> None:
    code = position_code(3, 6)
    rates = [1.0, 10_000 ** (-1 / 3), 10_000 ** (-2 / 3)]
    for position in range(3):
        angles = torch.tensor([position * rate for rate in rates])
        wanted = torch.cat([angles.sin(), angles.cos()]) * text.POSITION_AMPLITUDE
        torch.testing.assert_close(code[position], wanted)


def test_a_table_that_does_not_fit_its_vocabulary_is_refused(tmp_path: Path) -> None:
    (tmp_path / text.VOCABULARY_FILE).write_text("\n".join(PIECES) + "\n")
    with pytest.raises(FileNotFoundError, match=r"text_table\.safetensors"):
        WordTableEncoder.load(tmp_path)
    save_file({"rows": torch.zeros(7, 4, dtype=torch.int8), "scales": torch.ones(7)}, tmp_path / text.TABLE_FILE)
    with pytest.raises(ValueError, match="8 pieces, table has 7 rows"):
        WordTableEncoder.load(tmp_path)


def test_quantised_rows_are_within_half_a_step() -> None:
    table = torch.randn(50, 16, generator=torch.Generator().manual_seed(1)) * torch.logspace(-2, 2, 50)[:, None]
    rows, scales = quantise(table)
    assert rows.dtype == torch.int8
    # The scale is rounded to float16 (11 bits) as well: 0.5 step plus 127 x 2^-12.
    assert ((rows * scales.float()[:, None] - table).abs() <= 0.54 * scales.float()[:, None]).all()


def test_principal_components_keep_distances_and_have_unit_size() -> None:
    generator = torch.Generator().manual_seed(2)
    vectors = torch.randn(60, 3, generator=generator) @ torch.randn(3, 10, generator=generator) + 5
    result = principal(vectors, 3)
    assert result.square().mean() == pytest.approx(1)
    ratio = torch.cdist(result, result) / torch.cdist(vectors, vectors).clamp(min=1e-9)
    upper = ratio[torch.triu(torch.ones(60, 60, dtype=torch.bool), 1)]
    torch.testing.assert_close(upper, upper.mean().expand_as(upper), rtol=1e-3, atol=0)  # float32 input
