"""Processes that are told to end, and those that end when the one that started them is gone, however that came."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

#: Of <sys/prctl.h>.
PR_SET_PDEATHSIG = 1


class TerminatedError(KeyboardInterrupt):
    """SIGTERM, which reaches this process alone, where Ctrl-C reaches those that it started too."""


@contextlib.contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Treat SIGTERM like Ctrl-C, so that a scheduler's or a shell's stop keeps what was made and leaves no files."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise TerminatedError

    if threading.current_thread() is not threading.main_thread():  # signals reach the main thread only
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def ask_to_end_with_parent() -> None:
    """Be sent SIGTERM when the parent is gone (Linux); to be called between fork and exec."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def end_with_parent() -> None:
    """End this worker of `multiprocessing` when the process it works for is gone.

    It would wait forever, with its memory, for work from a queue of which it holds both ends.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None  # this is a worker

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="end-with-parent", daemon=True).start()
