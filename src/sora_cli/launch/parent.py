"""Processes that end when the one that started them is gone, however that came."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading

#: Of <sys/prctl.h>.
PR_SET_PDEATHSIG = 1


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
