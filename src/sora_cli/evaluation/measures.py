"""Measures of videos: loading them, going through videos piece by piece, means of what they give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sora_cli.errors import SoraError, UsageError
from sora_cli.plugin.blame import wrong_result
from sora_cli.plugin.manager import get_plugins
from sora_cli.plugin.specs import MetricSpec
from sora_cli.weights.locate import LocatedWeights, locate_parts, part_files, weights_present

#: Measures of a video beside its original that need no weights.
DEFAULT_METRICS = ("psnr", "ssim")
#: Decimals that people are shown.
DIGITS = 4


class Found(NamedTuple):
    """A measure whose weights are here. located: by part."""

    spec: MetricSpec
    located: Mapping[str, LocatedWeights]

    @property
    def weights(self) -> dict[str, str]:
        """Part -> fingerprint."""
        return {part: each.fingerprint for part, each in self.located.items()}


class Measure(NamedTuple):
    """A loaded measure. metric: as `spec.subject` says; weights: part -> fingerprint of what it looks with."""

    spec: MetricSpec
    metric: Any
    weights: Mapping[str, str]


Measures = Mapping[str, Measure]


def find_measures(names: Sequence[str], weights: Mapping[str, str]) -> dict[str, Found]:
    """Measures by name. weights: part -> file or folder of the user; those of other parts are left alone.

    Raises UsageError, or MissingError for weights that are not here.
    """
    plugins = get_plugins()
    found: dict[str, Found] = {}
    for name in dict.fromkeys(names):
        spec = plugins.get("metric", name)
        assert isinstance(spec, MetricSpec)  # the plugin manager checked it
        located = locate_parts(spec.weights, what=spec.name, overrides=weights, option="--metric-weights")
        found[spec.name] = Found(spec, located)
    return found


def load_measures(names: Sequence[str], weights: Mapping[str, str], device: torch.device) -> dict[str, Measure]:
    """As `find_measures`, ready to measure."""
    load = get_plugins().load_target
    return {
        name: Measure(found.spec, load(found.spec)(found.located, device), found.weights)
        for name, found in find_measures(names, weights).items()
    }


def read_weights(texts: Sequence[str]) -> dict[str, str]:
    """Part -> file, of the values of --metric-weights. Raises UsageError."""
    return part_files(texts, option="--metric-weights", example="alexnet=alexnet.pth")


def check_parts(given: Mapping[str, str], known: set[str]) -> None:
    """Raise UsageError for weights that no measure looks with."""
    if unused := sorted(set(given) - known):
        raise UsageError(
            f"no measure looks with {', '.join(unused)}", hint=f"parts: {', '.join(sorted(known)) or 'none'}"
        )


def can_load(name: str, given: Mapping[str, str]) -> bool:
    """Whether a measure is there with all it needs: packages, and weights given or on this machine."""
    plugins = get_plugins()
    spec = plugins.specs("metric").get(name)
    return (
        isinstance(spec, MetricSpec)
        and not plugins.missing_packages(spec)
        and all(part in given or weights_present(weights) for part, weights in spec.weights.items())
    )


class Values:
    """The values of measures for each frame of a video, or of a video beside its original, that come in pieces."""

    def __init__(self, measures: Measures) -> None:
        """measures: of pairs or of single videos."""
        self.measures = measures
        # Numbers, not the small tensors they come in, which would keep large ones beside them from being given back.
        self._values: dict[str, list[float]] = {name: [] for name in measures}
        self._overlap = max((measure.metric.overlap for measure in measures.values()), default=0)
        self._before: tuple[Tensor, ...] | None = None

    def add(self, video: Tensor, reference: Tensor | None = None) -> None:
        """The next frames (1, 3, T, H, W) in [0, 1]. Raises SoraError for frames that cannot be measured."""
        piece: tuple[Tensor, ...] = (video,) if reference is None else (reference, video)
        for name, (spec, metric, _) in self.measures.items():
            ours = piece
            if metric.overlap and self._before is not None:
                ours = tuple(
                    torch.cat([before[:, :, -metric.overlap :], now], dim=2)
                    for before, now in zip(self._before, piece, strict=True)
                )
            if spec.subject == "video":
                ours = ours[-1:]
            if video.shape[2] and ours[0].shape[2] > metric.overlap:
                try:
                    values = metric(*ours)
                except ValueError as error:
                    raise SoraError(f"{name}: {error}", hint="choose other measures with --metric") from error
                wanted = (1, ours[0].shape[2] - metric.overlap)
                if getattr(values, "shape", None) != wanted:
                    gave = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
                    raise wrong_result(spec, f"gave values {gave}, not {wanted}")
                self._values[name] += values[0].tolist()
        if self._overlap:
            tails = tuple(each[:, :, -self._overlap :] for each in piece)
            if self._before is not None:  # a piece may be shorter than that
                tails = tuple(torch.cat(both, dim=2) for both in zip(self._before, tails, strict=True))
            self._before = tuple(each[:, :, -self._overlap :] for each in tails)

    def of_frames(self) -> dict[str, Tensor]:
        """The values (T - overlap,) of each measure, float64; empty where the video is too short for it."""
        return {name: torch.tensor(found, dtype=torch.float64) for name, found in self._values.items()}

    def means(self) -> dict[str, float | None]:
        """The mean of each measure over the frames; None where the video is too short for it."""
        return {name: float(values.mean()) if len(values) else None for name, values in self.of_frames().items()}


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of those that are there; None when none is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def pooled_mean(videos: Sequence[Tensor], batch_size: int) -> float:
    """The mean as Open-Sora's metric tool takes it, of the values of each frame (T,) of each video.

    In every batch of videos the mean for each frame position; of all these numbers of all batches the mean, so that the
    videos of a short last batch weigh more. Raises ValueError for videos of several lengths in one batch.
    """
    positions = []
    for start in range(0, len(videos), batch_size):
        batch = videos[start : start + batch_size]
        if len({len(values) for values in batch}) > 1:
            raise ValueError(
                f"videos {start + 1} to {start + len(batch)} have {[len(values) for values in batch]} values"
            )
        positions.append(torch.stack(list(batch)).mean(dim=0))
    return float(torch.cat(positions).mean())


def rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of a table for people."""
    return {key: round(value, DIGITS) if isinstance(value, float) else value for key, value in row.items()}


def units_title(measures: Mapping[str, Measure | Found]) -> str | None:
    """The line above a table: the measures that have units."""
    units = (f"{name} in {measure.spec.unit}" for name, measure in measures.items() if measure.spec.unit)
    return ", ".join(units) or None
