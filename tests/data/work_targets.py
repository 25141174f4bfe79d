"""Work that goes well, raises, hangs and dies, by what the row says; run in other processes."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from pathlib import Path

from sora_cli.data.work import Made
from sora_cli.errors import MissingError


def make(options, device):
    log = Path(options["log"])

    def work(rows):
        made = []
        for row in rows:
            with log.open("a") as file:
                file.write(f"{row['path']} {device}\n")
            made.append(_one(row["path"], options))
        return made

    return work


def _one(path, options):
    if path.startswith("raise"):
        raise ValueError("no frames\nand more lines")
    if path.startswith("reason"):
        return Made(reason="it is empty")
    if path.startswith("hang"):
        Path(tempfile.mkdtemp(), "copy").touch()
        threading.Event().wait()
    if path.startswith("die"):
        os.kill(os.getpid(), signal.SIGKILL)
    if path.startswith("once") and not (mark := Path(options["log"]).with_name(path)).exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return Made([{"length": len(path), "half": len(path) / 2}])


def make_missing(options, device):
    raise MissingError("the package nothing is missing", hint="pip install nothing")


def make_parts(options, device):
    """As many new rows as the path's number."""
    return lambda rows: [Made([{"part": i} for i in range(int(row["path"]))]) for row in rows]
