"""Files that are read, and files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from .errors import UsageError


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


def check_files(paths: Sequence[str | Path]) -> None:
    """Raise UsageError for folders and for files that are not there, before anything is loaded."""
    folder = next((path for path in paths if Path(path).is_dir()), None)
    if folder is not None:
        raise UsageError(f"{folder} is a folder", hint="name the files in it")
    absent = [str(path) for path in paths if not Path(path).is_file()]
    if absent:
        raise UsageError(
            f"there is no file {absent[0]}", hint=f"missing too: {', '.join(absent[1:])}" if absent[1:] else None
        )
