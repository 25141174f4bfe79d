"""Measures videos, but hangs or ends its process at those with such names, as a decoder may."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sora_cli.data.work import Row, RowFunction
from sora_cli.evaluation import metrics_work


def make_measurer(options: Mapping[str, Any], device: str) -> RowFunction:
    measure = metrics_work.make_measurer(options, device)

    def hostile(rows: list[Row]) -> Any:
        for row in rows:
            if Path(row["path"]).stem == "hangs":
                threading.Event().wait()
            if Path(row["path"]).stem == "crashes":
                os._exit(7)
        return measure(rows)

    return hostile
