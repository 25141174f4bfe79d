"""Text to video on your own machines. The names below are what a plugin needs; each is imported at first use."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import MissingError, SoraError, UsageError
    from .plugin.hooks import hookimpl
    from .plugin.specs import (
        CheckResult,
        CheckSpec,
        Constraints,
        DataToolSpec,
        DiscriminatorSpec,
        InterpolatorSpec,
        MetricSpec,
        ModelSpec,
        ParallelismSpec,
        PartMemory,
        PresetSource,
        SchedulerSpec,
        ScoringBackendSpec,
        TextEncoderSpec,
        TrainedSize,
        UpscalerSpec,
        VAESpec,
        Weights,
    )

_OUTSIDE_SPECS = {
    "hookimpl": "sora_cli.plugin.hooks",
    "SoraError": "sora_cli.errors",
    "UsageError": "sora_cli.errors",
    "MissingError": "sora_cli.errors",
}

__all__ = [
    "CheckResult",
    "CheckSpec",
    "Constraints",
    "DataToolSpec",
    "DiscriminatorSpec",
    "InterpolatorSpec",
    "MetricSpec",
    "MissingError",
    "ModelSpec",
    "ParallelismSpec",
    "PartMemory",
    "PresetSource",
    "SchedulerSpec",
    "ScoringBackendSpec",
    "SoraError",
    "TextEncoderSpec",
    "TrainedSize",
    "UpscalerSpec",
    "UsageError",
    "VAESpec",
    "Weights",
    "hookimpl",
]


def __getattr__(name: str) -> Any:
    # Resolved lazily (PEP 562): `sora --help` imports this package and must not pay for pluggy.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_OUTSIDE_SPECS.get(name, "sora_cli.plugin.specs")), name)


@functools.cache
def version() -> str:
    """The installed version, or "unknown" when the package runs from a folder without having been installed."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("sora-cli")
    except PackageNotFoundError:
        return "unknown (not installed)"
