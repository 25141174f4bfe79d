"""Extracted features: encoded captions, captions as text that are drawn anew, and folders of earlier versions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sora_cli.plugin.protocols import TextEmbedding
from sora_cli.text.scores import Scores
from sora_cli.training.captions import CaptionOptions, draw_caption
from sora_cli.training.features import (
    CAPTIONS,
    FeatureEncoders,
    FeatureSource,
    captioned_batch,
    encoded_batch,
    features_path,
    read_index,
    write_bin,
    write_index,
)
from sora_cli.training.objective import Encoded
from sora_cli.training.table import ClipRow

SIZE = (17, 64, 64)
CLIPS = [ClipRow(f"{n}.mp4", (f"clip {n}", f"number {n}"), Scores(6.5, 2.0, "pan_left" if n else None)) for n in (0, 1)]


class Letters:
    """A text encoder: the first letters' codes."""

    width, max_tokens = 1, 300

    def encode(self, prompts: list[str], max_tokens: int = 300) -> TextEmbedding:
        with torch.inference_mode():
            mask = torch.zeros(len(prompts), max_tokens, dtype=torch.long)
            y = torch.zeros(len(prompts), 1, max_tokens, 1)
            for row, prompt in enumerate(prompts):
                mask[row, : len(prompt)] = 1
                y[row, 0, : len(prompt), 0] = torch.tensor([float(ord(letter)) for letter in prompt])
            return TextEmbedding(y, mask)


def sizes() -> dict[str, torch.Tensor]:
    return {name: torch.full((2,), 64.0) for name in ("height", "width", "num_frames", "ar", "fps")}


def loaded(folder: Path, epoch: int, *, workers: int = 0, encoder: Letters | None = None, **options) -> list[Encoded]:
    source = FeatureSource(read_index(folder), CaptionOptions(3, **options), workers, None)
    plan = source.plan(epoch, num_ranks=1)
    batches = source.load(plan, range(len(plan)), epoch, dtype=torch.float32, pin_memory=False)
    encoders = FeatureEncoders(torch.device("cpu"), encoder)
    return [encoders.encode(batch, 0) for batch in batches]


@pytest.fixture
def as_text(tmp_path: Path) -> Path:
    latents = torch.arange(2 * 4 * 5 * 2 * 2).view(2, 4, 5, 2, 2).float()
    write_bin(features_path(tmp_path, 0), [captioned_batch(latents, sizes(), SIZE, [4, 9], CLIPS)])
    write_index(tmp_path, {CAPTIONS: "text"}, 1)
    return tmp_path


@pytest.mark.parametrize("workers", [0, 1])
def test_captions_kept_as_text_are_drawn_anew_in_every_epoch(as_text: Path, workers: int) -> None:
    assert read_index(as_text).has_texts
    found = set()
    for epoch in range(5):
        (batch,) = loaded(as_text, epoch, encoder=Letters(), workers=workers, score_captions=True, score_drop=0.5)
        captions = ["".join(chr(int(code)) for code in row[0, :, 0] if code) for row in batch.y]
        options = CaptionOptions(3, True, 0.5)
        assert captions == [draw_caption(row, clip, epoch, options) for row, clip in zip((4, 9), CLIPS, strict=True)]
        # What noise depends on names the motion and the camera, where the table does.
        assert batch.texts == [
            f"measured motion score: 2.00. {captions[0]}",
            f"measured motion score: 2.00. camera motion: pan left. {captions[1]}",
        ]
        assert batch.mask.sum(dim=1).tolist() == [len(caption) for caption in captions]
        assert not batch.y.is_inference()
        assert batch.latents.shape == (2, 4, 5, 2, 2)
        assert batch.sizes.keys() == sizes().keys()
        found.add(captions[0])
    assert len(found) > 1


def test_encoded_captions_need_no_text_encoder(tmp_path: Path) -> None:
    y, mask = Letters().encode(["ab", "abc"])
    encoded = Encoded(0, torch.zeros(2, 4, 5, 2, 2), y, mask, sizes(), ["ab", "abc"])
    write_bin(features_path(tmp_path, 0), [encoded_batch(encoded, SIZE, [0, 1])])
    write_index(tmp_path, {}, 1)
    assert not read_index(tmp_path).has_texts
    for epoch in range(2):
        (batch,) = loaded(tmp_path, epoch)
        assert torch.equal(batch.y, y)
        assert torch.equal(batch.mask, mask)
        assert batch.texts == ["ab", "abc"]


def test_folders_of_earlier_versions(tmp_path: Path) -> None:
    """They say nothing of captions beside the encoded ones."""
    y, mask = Letters().encode(["ab", "abc"])
    encoded = Encoded(0, torch.zeros(2, 4, 5, 2, 2), y, mask, sizes(), [])
    write_bin(features_path(tmp_path, 0), [encoded_batch(encoded, SIZE, [0, 1])])
    write_index(tmp_path, {}, 1)
    content = json.loads((tmp_path / "index.json").read_text())
    del content["batches"][0]["texts"]
    (tmp_path / "index.json").write_text(json.dumps(content))
    (batch,) = loaded(tmp_path, 0)
    assert torch.equal(batch.y, y)
    assert list(batch.texts) == []
