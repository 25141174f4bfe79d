"""Files that are read, and files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
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


@contextlib.contextmanager
def claimed(path: Path, *, is_folder: bool = False) -> Iterator[None]:
    """Keep other processes that ask from a file or folder until it is renamed or removed; it is made if not there.

    Raises BlockingIOError while another process has it, and the OSError of what cannot be made or opened.
    """
    while (descriptor := _claim(path, is_folder=is_folder)) is None:
        pass
    try:
        yield
    finally:
        os.close(descriptor)


def _claim(path: Path, *, is_folder: bool) -> int | None:
    """A descriptor that holds it; None when the process that had it has just renamed or removed it."""
    import fcntl

    if is_folder:
        path.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise BlockingIOError(errno.EWOULDBLOCK, "another process is writing it", str(path)) from None
    except OSError:
        pass  # a file system without locks
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    os.close(descriptor)
    return None


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
