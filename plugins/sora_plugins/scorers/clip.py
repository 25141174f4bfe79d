"""CLIP (Radford et al. 2021, arXiv 2103.00020) through transformers: pictures and captions as vectors of one space."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sora_cli.errors import SoraError
from sora_cli.text.tokenizers import load_tokenizer

from .pictures import LONGEST, Picture

if TYPE_CHECKING:
    from sora_cli.weights.locate import LocatedWeights

#: One number for each of red, green and blue.
Colour = tuple[float, float, float]
#: OpenAI's, for colours in [0, 1].
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
TOKENIZER_FILES = ("tokenizer.json", "vocab.json")
#: Pictures or captions that go through the network together.
AT_ONCE = 64


class Clip:
    """The network and its tokenizer; vectors are those of its projections, not of unit length."""

    def __init__(self, network: Any, tokenizer: Any) -> None:
        """network: a transformers CLIPModel; tokenizer: its tokenizer, None where captions are not wanted."""
        self.network, self.tokenizer = network, tokenizer
        self.size: int = network.config.vision_config.image_size
        self.max_tokens: int = network.config.text_config.max_position_embeddings

    @property
    def scale(self) -> float:
        """What cosines are multiplied by, 100 in the released models."""
        return float(self.network.logit_scale.exp())

    @torch.inference_mode()
    def embed_pictures(self, pictures: Sequence[Picture]) -> Tensor:
        """(N, D) float32 on the CPU of RGB pictures of any sizes."""
        found = []
        for part in parts(pictures):
            found.append(self.embed_prepared(torch.stack([prepare(picture, self.size) for picture in part])))
        return torch.cat(found) if found else torch.empty(0, self.network.config.projection_dim)

    @torch.inference_mode()
    def embed_prepared(self, pixels: Tensor) -> Tensor:
        """(N, D) float32 on the CPU of pictures (N, 3, size, size) that are normalised already; all at a time."""
        out = self.network.vision_model(pixel_values=pixels.to(self.network.device)).pooler_output
        vectors: Tensor = self.network.visual_projection(out).cpu()
        return vectors

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """(N, D) float32 on the CPU of captions, cut to 77 tokens."""
        found = []
        for part in parts(texts):
            tokens = self.tokenizer(
                list(part), max_length=self.max_tokens, padding="max_length", truncation=True, return_tensors="pt"
            )
            # No mask: attention looks back only, so what follows the end token influences nothing before it.
            out = self.network.text_model(input_ids=tokens["input_ids"].to(self.network.device)).pooler_output
            found.append(self.network.text_projection(out).cpu())
        return torch.cat(found) if found else torch.empty(0, self.network.config.projection_dim)


def prepare(picture: Picture, size: int, mean: Colour = MEAN, std: Colour = STD) -> Tensor:
    """(3, size, size) float32 as CLIP was trained: shorter side to `size`, bicubic, the middle cut out, normalised.

    mean, std: of colours in [0, 1].
    """
    from PIL import Image

    short = min(picture.shape[:2])
    # Of a strip only the middle, which is all that is cut out; the whole would be enlarged to gigabytes.
    top, left = (max(0, side - LONGEST * short) // 2 for side in picture.shape[:2])
    picture = picture[top : top + LONGEST * short, left : left + LONGEST * short]
    height, width = picture.shape[:2]
    resized = Image.fromarray(picture).resize(
        (int(size * width / short), int(size * height / short)), Image.Resampling.BICUBIC
    )
    x, y = (round((side - size) / 2) for side in resized.size)
    pixels = torch.from_numpy(np.array(resized.crop((x, y, x + size, y + size))))
    means, deviations = torch.tensor([mean, std])[:, :, None, None]
    return (pixels.permute(2, 0, 1) / 255 - means) / deviations


def read_clip(weights: LocatedWeights, device: torch.device, *, has_texts: bool = False) -> Clip:
    """CLIP from a folder as of the hub, frozen, on `device`; scorers that ask for the same one share its network.

    has_texts: with its tokenizer. Raises SoraError for a folder of something else or a damaged one.
    """
    network = _network(weights.folder, weights.fingerprint, str(device))
    return Clip(network, load_tokenizer(weights.folder, TOKENIZER_FILES) if has_texts else None)


@functools.lru_cache(maxsize=1)
def _network(folder: Path, fingerprint: str, device: str) -> Any:
    """fingerprint: so that other weights under the same name are another network."""
    from transformers import AutoConfig, CLIPModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    hint = "give a folder with config.json and all files of the released CLIP, with --weights"
    try:
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True)
        if config.model_type != "clip":
            raise SoraError(f"{folder} holds a {config.model_type}, not CLIP", hint=hint)
        loaded: Any = CLIPModel.from_pretrained(str(folder), local_files_only=True, output_loading_info=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise SoraError(f"cannot read CLIP from {folder}: {error}", hint=hint) from error
    network, report = loaded
    problems = [name for kind in ("missing_keys", "mismatched_keys") for name in report[kind]]
    if problems:
        raise SoraError(f"the weights in {folder} are not those of CLIP: {problems[0]} is missing or wrong", hint=hint)
    return network.float().requires_grad_(False).eval().to(device)


def parts(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """So many at a time as go through a network together."""
    for start in range(0, len(values), AT_ONCE):
        yield values[start : start + AT_ONCE]
