"""Small networks that name scenes and colours, trained on renders alone: they have never seen what nano makes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

HEIGHT, WIDTH = 72, 128
#: Frames of a clip that are looked at, and how far the second picture of each is.
LOOKS, APART = 4, 2


class SceneClassifier(nn.Module):
    """A picture and its change to a later one, (N, 6, 72, 128) in [-1, 1], to scores of scenes."""

    def __init__(self, num_scenes: int) -> None:
        super().__init__()
        widths = (6, 32, 64, 96, 128)
        layers: list[nn.Module] = []
        for before, width in itertools.pairwise(widths):
            layers += [nn.Conv2d(before, width, 3, stride=2, padding=1), nn.GroupNorm(8, width), nn.SiLU()]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], num_scenes)

    def features(self, x: Tensor) -> Tensor:
        """(N, 128)."""
        out: Tensor = self.layers(x).mean(dim=(2, 3))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """(N, scenes)."""
        out: Tensor = self.head(self.features(x))
        return out


def looks(clip: NDArray[np.uint8]) -> Tensor:
    """What the network sees of a clip (T, H, W, 3): (LOOKS, 6, 72, 128)."""
    places = np.linspace(0, len(clip) - 1 - APART, LOOKS).astype(int)
    pictures = torch.from_numpy(clip[np.concatenate([places, places + APART])]).permute(0, 3, 1, 2).float() / 127.5 - 1
    small = F.interpolate(pictures, (HEIGHT, WIDTH), mode="area")
    return torch.cat([small[:LOOKS], 2 * (small[LOOKS:] - small[:LOOKS])], dim=1)


def train(
    clips: Sequence[NDArray[np.uint8]], labels: Sequence[int], *, steps: int = 600, seed: int = 0
) -> SceneClassifier:
    """Train on rendered clips, flipped, shifted and changed in brightness, so that style alone does not decide."""
    torch.manual_seed(seed)
    network = SceneClassifier(max(labels) + 1)
    x, y = torch.stack([looks(clip) for clip in clips]), torch.tensor(labels)
    optimizer = torch.optim.AdamW(network.parameters(), 2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    for _ in range(steps):
        rows = torch.randint(len(x), (48,))
        batch = x[rows, torch.randint(LOOKS, (48,))]
        if float(torch.rand(())) < 0.5:
            batch = batch.flip(-1)
        batch = torch.roll(batch, [int(torch.randint(-6, 7, ())), int(torch.randint(-12, 13, ()))], dims=(2, 3))
        batch = batch * (0.8 + 0.4 * torch.rand(48, 1, 1, 1)) + 0.1 * torch.randn(48, 1, 1, 1)
        blurred = F.avg_pool2d(batch, 3, stride=1, padding=1)
        batch = torch.where(torch.rand(48, 1, 1, 1) < 0.3, blurred, batch) + 0.03 * torch.randn_like(batch)
        loss = F.cross_entropy(network(batch), y[rows], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


@torch.inference_mode()
def judge(
    network: SceneClassifier, clips: Sequence[NDArray[np.uint8]], among: Sequence[int] | None = None
) -> tuple[list[int], NDArray[np.float64]]:
    """The class of each clip, of those in `among`, and its features (N, 128), mean over the looks."""
    names, features = [], []
    known = list(range(network.head.out_features)) if among is None else list(among)
    for clip in clips:
        seen = network.features(looks(clip))
        scores = network.head(seen)[:, known].softmax(dim=1).mean(dim=0)
        names.append(known[int(scores.argmax())])
        features.append(seen.mean(dim=0).double().numpy())
    return names, np.stack(features)
