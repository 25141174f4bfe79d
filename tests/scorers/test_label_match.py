"""The match by class names: tiny networks by hand, the real ones where their packages are installed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from real_clips import packaged_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from sora_cli.errors import SoraError
from sora_cli.plugin.protocols import ClipFrames
from sora_cli.weights.locate import locate_parts
from sora_plugins.labels.classes import imagenet
from sora_plugins.scorers import EFFICIENTNET, MINILM, label_match
from sora_plugins.scorers.efficientnet import EfficientNetLite0, SameConv

CPU = torch.device("cpu")
PARTS = {"classifier": EFFICIENTNET, "sentences": MINILM}
LION = 291


def located(**overrides):
    return locate_parts(PARTS, what="match-labels", overrides=overrides, option="--weights")


def clip(frame, text):
    return ClipFrames(frame[None], np.zeros(1), 1, 0.0, text)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A classifier that is sure of the lion whatever it sees, and a sentence transformer of random weights."""
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    network = EfficientNetLite0()
    torch.nn.init.zeros_(network.fc.weight)
    network.fc.bias.data[LION] = 1000.0
    released = {
        ".".join(
            part if part.isdigit() or part in ("weight", "bias") or "run" in part or "num" in part else f"_{part}"
            for part in name.split(".")
        ): value
        for name, value in network.state_dict().items()
    }
    torch.save(released, folder / "classifier.pth")
    words = sorted({word for line in imagenet().names for word in line.lower().replace(",", "").split()})
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
    tokens = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokens.normalizer, tokens.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    tokens.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    PreTrainedTokenizerFast(tokenizer_object=tokens, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(
        folder / "sentences"
    )
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(folder / "sentences")
    return located(classifier=str(folder / "classifier.pth"), sentences=str(folder / "sentences"))


def test_the_score_is_the_cosine_of_the_class_and_the_caption(tiny):
    scorer = label_match.load(tiny, CPU)
    frame = np.zeros((30, 50, 3), np.uint8)
    captions = ["lion", "great white shark", None, "  ", "a lion " * 40]
    scores = scorer.score([clip(frame, text) for text in captions])
    assert scores[0]["match_labels"] == pytest.approx(1, abs=1e-5)
    alone = scorer.sentences(["great white shark"])[0]
    assert scores[1]["match_labels"] == pytest.approx(float(alone @ scorer.names[LION]), abs=1e-5)
    assert [score["match_labels"] for score in scores[2:4]] == [None, None]
    assert scores[2]["reason"] == "it has no caption"
    assert scorer.score([]) == []


def test_other_files_are_said(tiny, tmp_path):
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "other.pth")
    other = located(classifier=str(tmp_path / "other.pth"), sentences=str(tiny["sentences"].folder))
    with pytest.raises(SoraError, match="not those of EfficientNet-Lite0"):
        label_match.load(other, CPU)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(SoraError, match="cannot read the sentence transformer"):
        label_match.load(located(classifier=str(tiny["classifier"].files[0]), sentences=str(tmp_path)), CPU)


def test_the_classifier_has_the_size_and_padding_of_the_released_one():
    network = EfficientNetLite0()
    assert sum(value.numel() for value in network.parameters()) == 4_652_008
    conv = SameConv(1, 1, 3, 2)
    torch.nn.init.ones_(conv.weight)
    # Four windows of 3 over 0 to 7: TensorFlow puts the one missing column behind them.
    found = conv(torch.arange(8.0).expand(1, 1, 8, 8))[0, 0, 0]
    assert found.tolist() == [(0 + 1 + 2) * 3, (2 + 3 + 4) * 3, (4 + 5 + 6) * 3, (6 + 7) * 3]


def test_right_captions_above_wrong_ones():
    """On photographs of things that ImageNet has, which is all that it is good for."""
    captions = {"cheetah": "a cheetah in the grass", "lion": "a lion with a mane", "tower": "a tall tower in a city"}
    folder = "media_assets/images"
    photos = {name: packaged_file("gradio", f"{folder}/{name}.jpg", "gradio==6.31.0") for name in captions}
    for weights in PARTS.values():
        packaged_file(weights.package or "", weights.files[0], (weights.by_hand or "").split()[-1])
    scorer = label_match.load(located(), CPU)
    for name, path in photos.items():
        frame = np.asarray(Image.open(path).convert("RGB"))
        scores = scorer.score([clip(frame, text) for text in captions.values()])
        found = dict(zip(captions, [score["match_labels"] for score in scores], strict=True))
        assert max(found, key=found.__getitem__) == name
