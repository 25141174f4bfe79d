"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, with its folder; what was there before stays until the new text is complete.

    Raises SoraError when it cannot be written.
    """
    from .video.io import write_failed

    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise write_failed(path, error) from error
    finally:
        partial.unlink(missing_ok=True)
