"""How well a caption fits a clip without CLIP: a classifier's names of what it sees, compared with the caption.

The picture is the mean of sentence vectors of ImageNet's class names, weighted by their probabilities. That is weak: it
knows things that ImageNet has, on photographs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sora_cli.data import sampling
from sora_cli.errors import SoraError
from sora_cli.plugin.protocols import ClipFrames, Scores
from sora_cli.text.tokenizers import load_tokenizer
from sora_cli.weights.load import fill_network, read_tensors
from sora_plugins.labels.classes import imagenet

from .clip import parts, prepare
from .efficientnet import EfficientNetLite0
from .pictures import Picture

if TYPE_CHECKING:
    from sora_cli.weights.locate import LocatedWeights

COLUMN = "match_labels"
#: Pictures as EfficientNet-Lite0 was trained: its side, and mean and deviation of colours in [0, 1].
SIZE, MEAN, STD = 224, (0.498,) * 3, (0.502,) * 3
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt")


class Sentences:
    """Unit vectors of texts: the mean over the tokens of a sentence transformer."""

    def __init__(self, network: Any, tokenizer: Any) -> None:
        self.network, self.tokenizer = network, tokenizer

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """(N, D) float32 on the CPU; texts are cut where the network ends."""
        found = []
        for part in parts(texts):
            tokens = self.tokenizer(
                list(part),
                max_length=self.network.config.max_position_embeddings,
                padding=True,
                truncation=True,
                return_tensors="pt",
            ).to(self.network.device)
            states = self.network(**tokens).last_hidden_state
            mask = tokens["attention_mask"][..., None]
            found.append(F.normalize((states * mask).sum(1) / mask.sum(1), dim=-1).float().cpu())
        return torch.cat(found)


class LabelMatchScorer:
    """Column `match_labels`: a cosine, about 0 for a caption of something else."""

    def __init__(self, classifier: EfficientNetLite0, sentences: Sentences) -> None:
        self.classifier, self.sentences = classifier, sentences
        self.names = sentences([line.split(", ")[0] for line in imagenet().names or ()])

    def frames(self, num_frames: int, fps: float) -> list[int]:
        """The middle one."""
        return sampling.at_points(num_frames, sampling.MATCH_POINTS)

    def score(self, clips: Sequence[ClipFrames]) -> list[Scores]:
        """None for clips without a caption."""
        captions = [(clip.text or "").strip() for clip in clips]
        chosen = [place for place, caption in enumerate(captions) if caption]
        scores: list[Scores] = [{COLUMN: None, "reason": "it has no caption"} for _ in clips]
        if chosen:
            seen = self.embed_pictures([clips[place].frames[0] for place in chosen])
            cosines = (seen * self.sentences([captions[place] for place in chosen])).sum(-1)
            for place, cosine in zip(chosen, cosines.tolist(), strict=True):
                scores[place] = {COLUMN: cosine}
        return scores

    @torch.inference_mode()
    def embed_pictures(self, pictures: Sequence[Picture]) -> Tensor:
        """(N, D) unit vectors of RGB pictures of any sizes."""
        device = self.classifier.fc.weight.device
        found = []
        for part in parts(pictures):
            pixels = torch.stack([prepare(picture, SIZE, MEAN, STD) for picture in part]).to(device)
            found.append(self.classifier(pixels).softmax(-1).cpu())
        return F.normalize(torch.cat(found) @ self.names, dim=-1)


def load(weights: Mapping[str, LocatedWeights], device: torch.device, options: None = None) -> LabelMatchScorer:
    """The scorer. weights: "classifier" and "sentences"."""
    return LabelMatchScorer(
        read_classifier(weights["classifier"], device), read_sentences(weights["sentences"], device)
    )


def read_classifier(weights: LocatedWeights, device: torch.device) -> EfficientNetLite0:
    """EfficientNet-Lite0 of its released file. Raises SoraError for a file of something else."""
    tensors = {name.replace("._", ".").removeprefix("_"): value for name, value in read_tensors(weights.files).items()}
    with torch.device("meta"):
        network = EfficientNetLite0()
    hint = "give efficientnet-lite0-57934424.pth with --weights match-labels.classifier=FILE"
    return fill_network(network, tensors, source=weights.files[0], title="EfficientNet-Lite0", hint=hint).to(device)


def read_sentences(weights: LocatedWeights, device: torch.device) -> Sentences:
    """A sentence transformer of a folder. Raises SoraError for a folder of something else."""
    from transformers import AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    hint = "give a folder of all-MiniLM-L6-v2 with --weights match-labels.sentences=FOLDER"
    try:
        loaded: Any = AutoModel.from_pretrained(str(weights.folder), local_files_only=True, output_loading_info=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise SoraError(f"cannot read the sentence transformer in {weights.folder}: {error}", hint=hint) from error
    network, report = loaded
    if missing := sorted(name for name in report["missing_keys"] if not name.startswith("pooler.")):
        raise SoraError(f"the weights in {weights.folder} are not whole: {missing[0]} is missing", hint=hint)
    tokenizer = load_tokenizer(weights.folder, TOKENIZER_FILES)
    return Sentences(network.float().requires_grad_(False).eval().to(device), tokenizer)
