"""How beautiful people would find a picture: CLIP ViT-L/14 and the LAION "improved aesthetic predictor"."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sora_cli.weights.load import fill_network, read_tensors

from .clip import read_clip
from .options import FramesOptions
from .pictures import Picture, PictureScorer

if TYPE_CHECKING:
    from sora_cli.weights.locate import LocatedWeights


class AestheticHead(nn.Module):
    """Layers `layers.0` to `layers.7` of the released file. Without activations: it is one affine map of the image."""

    def __init__(self) -> None:
        super().__init__()
        widths = (768, 1024, 128, 64, 16)
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.Identity()]  # dropout, when it was trained
        self.layers = nn.Sequential(*layers[:-1], nn.Linear(widths[-1], 1))

    @torch.no_grad()
    def folded(self) -> tuple[Tensor, float]:
        """The map as one vector (768,) and a constant, float64."""
        matrix, constant = torch.eye(768, dtype=torch.float64), torch.zeros(768, dtype=torch.float64)
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                weight = layer.weight.double()
                matrix, constant = weight @ matrix, weight @ constant + layer.bias.double()
        return matrix[0], float(constant)


def aesthetic_scores(embeddings: Tensor, head: tuple[Tensor, float]) -> Tensor:
    """Scores (N,) float64 of CLIP's image embeddings (N, 768); they are made unit length first."""
    vector, constant = head
    return F.normalize(embeddings.double(), dim=-1) @ vector.to(embeddings.device) + constant


def read_head(weights: LocatedWeights, *, option: str = "--weights aes.head") -> tuple[Tensor, float]:
    """The folded head of the released file. option: that takes it. Raises SoraError for a file of something else."""
    with torch.device("meta"):
        head = AestheticHead()
    hint = f"give the right file with {option}=FILE"
    source = weights.files[0]
    return fill_network(
        head, read_tensors(weights.files), source=source, title="the aesthetic head", hint=hint
    ).folded()


def load(
    weights: Mapping[str, LocatedWeights], device: torch.device, options: FramesOptions | None = None
) -> PictureScorer:
    """Column `aes`, about 1 to 10: the mean over 1 to 3 frames. weights: "clip" and "head"."""
    clip, head = read_clip(weights["clip"], device), read_head(weights["head"])

    def measure(pictures: Sequence[Picture]) -> Mapping[str, Sequence[float]]:
        return {"aes": aesthetic_scores(clip.embed_pictures(pictures), head).tolist()}

    return PictureScorer(measure, count=(options or FramesOptions()).frames)
