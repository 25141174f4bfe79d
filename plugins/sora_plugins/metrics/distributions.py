"""Distances between two sets of videos by features of them: Frechet distances (FID, FVD, of CLIP) and CMMD."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sora_plugins.scorers.clip import Clip, read_clip

from .i3d import CLASSES, FRAMES
from .inception import DIMENSIONS
from .weights import read_i3d, read_inception

if TYPE_CHECKING:
    from sora_cli.weights.locate import LocatedWeights
    from sora_plugins.scorers.pictures import Picture

Set = TypeVar("Set", "Gaussian", "Features")
#: Of CMMD: the kernel exp(-d^2 / (2 sigma^2)), and what its mean differences are multiplied by.
SIGMA, SCALE = 10.0, 1000.0
#: Rows of a kernel that are computed at a time.
ROWS = 4096
#: Frames below which CMMD is said to be rough: pairs of a feature with itself add up to 20 / N to it, here 0.04.
CMMD_WANTED = 500


class FeatureDistance(Generic[Set]):
    """A distance of two sets by features (protocols.DistributionMetric).

    look: features (n, D) of n pieces of a video (1, 3, n * piece_frames, H, W) in [0, 1]. new_set: an empty set.
    compare: the originals with the videos.
    """

    def __init__(
        self,
        look: Callable[[Tensor], Tensor],
        new_set: Callable[[], Set],
        compare: Callable[[Set, Set], float],
        *,
        wanted: int,
        piece_frames: int = 1,
    ) -> None:
        self.look = look
        self.new_set: Callable[[], Set] = new_set
        self.compare: Callable[[Set, Set], float] = compare
        self.wanted, self.piece_frames = wanted, piece_frames

    @torch.inference_mode()
    def features(self, video: Tensor) -> Tensor:
        """As the protocol."""
        return self.look(video).float().cpu()

    def distance(self, reference: Set, videos: Set) -> float:
        """As the protocol."""
        return self.compare(reference, videos)


class Gaussian:
    """Mean and covariance of features that come a few at a time, in float64 and at most some (2 D, D) numbers.

    The covariance is kept as R with R^T R = the sum of (x - mean)(x - mean)^T, which goes on exactly where the features
    have fewer directions than numbers; the sum itself has only half of the digits there.
    """

    def __init__(self) -> None:
        self._count, self._waiting, self._rows = 0, list[Tensor](), 0
        self._mean, self._root = torch.empty(0), torch.empty(0)

    def __len__(self) -> int:
        return self._count + self._rows

    def add(self, features: Tensor) -> None:
        """Features (n, D)."""
        self._waiting.append(features)
        self._rows += len(features)
        # A decomposition costs at least as much as one of D rows.
        if self._rows >= features.shape[1]:
            self._fold()

    def mean(self) -> Tensor:
        """(D,) float64."""
        self._fold()
        return self._mean

    def root(self) -> Tensor:
        """R (D or fewer, D) float64, with R^T R the covariance, of len(self) - 1 degrees of freedom."""
        self._fold()
        return self._root / (self._count - 1) ** 0.5

    def _fold(self) -> None:
        if not self._rows:
            return
        rows = torch.cat(self._waiting).double()
        count, mean = len(rows), rows.mean(dim=0)
        rows = rows - mean
        if self._count:
            # Chan, Golub and LeVeque 1979: two sets together spread as each does, and by the distance of their means.
            step, total = mean - self._mean, self._count + count
            rows = torch.cat([self._root, rows, (self._count * count / total) ** 0.5 * step[None]])
            mean = self._mean + step * (count / total)
        # R of X = QR has R^T R = X^T X, and no more rows than X has.
        self._root = torch.linalg.qr(rows, mode="r").R
        self._count, self._mean, self._waiting, self._rows = self._count + count, mean, [], 0


class Features:
    """All features of a set."""

    def __init__(self) -> None:
        self._parts: list[Tensor] = []

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def add(self, features: Tensor) -> None:
        """Features (n, D)."""
        self._parts.append(features)

    def unit(self) -> Tensor:
        """(N, D) float64, each of length 1."""
        return torch.nn.functional.normalize(torch.cat(self._parts).double(), dim=1)


def frechet_distance(reference: Gaussian, videos: Gaussian) -> float:
    """Frechet distance of the Gaussians that have the means and covariances of features.

    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), covariances with N - 1, as FID and FVD are defined (Heusel et al. 2017,
    Dowson and Landau 1982). Raises ValueError for less than two features of a set.
    """
    for name, features in (("the originals", reference), ("the videos", videos)):
        if len(features) < 2:
            raise ValueError(f"{name} give {len(features)} features, and a covariance needs two")
    roots = reference.root(), videos.root()
    # With S = R^T R the trace of (S1 S2)^(1/2) is the sum of the singular values of R1 R2^T: no root of a matrix, which
    # is not defined for singular ones, is taken.
    overlap = torch.linalg.svdvals(roots[0] @ roots[1].T).sum()
    spread = roots[0].square().sum() + roots[1].square().sum()
    return max(0.0, float((reference.mean() - videos.mean()).square().sum() + spread - 2 * overlap))


def cmmd(reference: Features, videos: Features) -> float:
    """CMMD: 1000 times the squared maximum mean discrepancy, of features of length 1.

    With the pairs of a feature with itself, as published (Jayasumana et al. 2024, "Rethinking FID"). Raises ValueError
    for sets without features.
    """
    if not len(reference) or not len(videos):
        raise ValueError("a set has no frames")
    a, b = reference.unit(), videos.unit()
    return SCALE * (_kernel_mean(a, a) + _kernel_mean(b, b) - 2 * _kernel_mean(a, b))


def _kernel_mean(a: Tensor, b: Tensor) -> float:
    total = 0.0
    for rows in a.split(ROWS):
        squares = rows.square().sum(dim=1, keepdim=True) + b.square().sum(dim=1) - 2 * rows @ b.T
        total += float(torch.exp(-squares / (2 * SIGMA**2)).sum())
    return total / (len(a) * len(b))


def load_clip_distance(weights: Mapping[str, LocatedWeights], device: torch.device) -> FeatureDistance[Gaussian]:
    """The Frechet distance of vectors of CLIP. weights: "clip"."""
    clip = read_clip(weights["clip"], device)
    return FeatureDistance(
        lambda video: clip.embed_pictures(pictures_of(video)),
        Gaussian,
        frechet_distance,
        wanted=full_rank(clip.network.config.projection_dim),
    )


def load_cmmd(weights: Mapping[str, LocatedWeights], device: torch.device) -> FeatureDistance[Features]:
    """CMMD. weights: "clip336"."""
    clip = read_clip(weights["clip336"], device)
    return FeatureDistance(lambda video: squeezed_vectors(clip, video), Features, cmmd, wanted=CMMD_WANTED)


def load_fid(weights: Mapping[str, LocatedWeights], device: torch.device) -> FeatureDistance[Gaussian]:
    """The Frechet distance of features of Inception. weights: "inception"."""
    network = read_inception(weights["inception"], device)
    return FeatureDistance(
        lambda video: network(video[0].transpose(0, 1).to(device)),
        Gaussian,
        frechet_distance,
        wanted=full_rank(DIMENSIONS),
    )


def load_fvd(weights: Mapping[str, LocatedWeights], device: torch.device) -> FeatureDistance[Gaussian]:
    """The Frechet distance of features of I3D, of pieces of 16 frames. weights: "i3d"."""
    network = read_i3d(weights["i3d"], device)

    def look(video: Tensor) -> Tensor:
        return torch.cat([network(piece.to(device)) for piece in video.split(FRAMES, dim=2)])

    return FeatureDistance(look, Gaussian, frechet_distance, wanted=full_rank(CLASSES), piece_frames=FRAMES)


def full_rank(dimensions: int) -> int:
    """Features that a covariance of so many dimensions needs at least; below, Frechet distances come out too large."""
    return dimensions + 1


def squeezed_vectors(clip: Clip, video: Tensor) -> Tensor:
    """Vectors of the frames squeezed into a square instead of cut, as the published CMMD does it."""
    square = (clip.size, clip.size)
    squeezed = [Image.fromarray(each).resize(square, Image.Resampling.BICUBIC) for each in pictures_of(video)]
    return clip.embed_pictures([np.asarray(each) for each in squeezed])


def pictures_of(video: Tensor) -> Sequence[Picture]:
    """The frames (H, W, 3) uint8 of a video (1, 3, T, H, W) in [0, 1]."""
    return list(video[0].mul(255).round().byte().permute(1, 2, 3, 0).cpu().numpy())
