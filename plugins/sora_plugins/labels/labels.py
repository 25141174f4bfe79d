"""Classes as text encoders: numbers in the place of embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from sora_cli.errors import UsageError
from sora_cli.plugin.protocols import TextEmbedding

from .classes import Classes, imagenet, numbers, ucf101

if TYPE_CHECKING:
    from sora_cli.weights.locate import LocatedWeights


class ClassLabels:
    """Prompts that name classes."""

    def __init__(self, classes: Classes, device: torch.device) -> None:
        self.classes, self.device = classes, device

    @torch.inference_mode()
    def encode(self, prompts: Sequence[str]) -> TextEmbedding:
        """Class numbers (n, 1, 1, 1) int64, which no number format rounds, and a mask (n, 1) of ones.

        Raises UsageError for what is no class, or the name of several.
        """
        ids = torch.tensor([self.classes.class_of(each) for each in prompts], dtype=torch.int64, device=self.device)
        return TextEmbedding(ids.view(-1, 1, 1, 1), torch.ones_like(ids)[:, None])


def load_imagenet(weights: LocatedWeights | None, device: torch.device, dtype: torch.dtype) -> ClassLabels:
    """The classes of ImageNet. dtype: has no meaning here. Raises UsageError for weights."""
    return _load(imagenet(), weights, device)


def load_ucf101(weights: LocatedWeights | None, device: torch.device, dtype: torch.dtype) -> ClassLabels:
    """The classes of UCF101; as `load_imagenet`."""
    return _load(ucf101(), weights, device)


def load_ids(weights: LocatedWeights | None, device: torch.device, dtype: torch.dtype) -> ClassLabels:
    """Numbers of classes, which the model checks; as `load_imagenet`."""
    return _load(numbers(), weights, device)


def _load(classes: Classes, weights: LocatedWeights | None, device: torch.device) -> ClassLabels:
    if weights is not None:
        raise UsageError("class labels have no weights", hint="leave out --text-weights")
    return ClassLabels(classes, device)
