"""Writing frames without any loss, for comparing them: FFV1 in Matroska, or PNG for a single frame."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .io import frame_rate, partial_path, write_failed, write_image

#: Of a single frame, and of several.
ENDINGS = (".png", ".mkv")


class LosslessFiles:
    """Files that grow together. They get their names when all is written, or none is left.

    paths: name -> path without its ending, which is .png for one frame, else .mkv.
    """

    def __init__(self, paths: Mapping[str, Path], fps: float, num_frames: int) -> None:
        ending = ENDINGS[0] if num_frames == 1 else ENDINGS[1]
        self.paths = {name: path.with_name(f"{path.name}{ending}") for name, path in paths.items()}
        self.fps, self.is_image = fps, num_frames == 1
        self._open: dict[str, tuple[Any, Any]] = {}

    def __enter__(self) -> LosslessFiles:
        return self

    def add(self, panels: Mapping[str, NDArray[np.uint8]]) -> None:
        """The next frames (T, H, W, 3) of every file. Raises SoraError when they cannot be written."""
        for name, frames in panels.items():
            path = self.paths[name]
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                if self.is_image:
                    write_image(path, frames[0])
                else:
                    self._add(name, frames)
            except OSError as error:
                raise write_failed(path, error) from error

    def _add(self, name: str, frames: NDArray[np.uint8]) -> None:
        import av

        if name not in self._open:
            container = av.open(f"file:{partial_path(self.paths[name])}", "w", options={"fflags": "+bitexact"})
            stream = container.add_stream("ffv1", rate=frame_rate(self.fps))
            stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "bgr0"
            self._open[name] = container, stream
        container, stream = self._open[name]
        for picture in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame.reformat(format="bgr0")))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        for container, stream in self._open.values():
            if kind is None:
                container.mux(stream.encode())
                container.close()
            else:
                with contextlib.suppress(Exception):  # the first error is the one to report
                    container.close()
        for name in self._open:
            partial = partial_path(self.paths[name])
            if kind is None:
                os.replace(partial, self.paths[name])
            else:
                partial.unlink(missing_ok=True)
