"""What a scorer of a plugin does wrong is said, with its name."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from sora_cli.data import scoring
from sora_cli.errors import SoraError
from sora_cli.plugin.specs import DataToolSpec


class Bright:
    """Mean brightness; `column` and `frame` may be wrong ones."""

    column, frame = "bright", 0

    def __init__(self, weights, device, options):
        pass

    def frames(self, num_frames, fps):
        return [self.frame]

    def score(self, clips):
        return [{self.column: float(clip.frames.mean())} for clip in clips]


@pytest.fixture
def score(monkeypatch, tmp_path):
    def run(target):
        spec = DataToolSpec(name="bright", summary="mean brightness", target="bright:Bright", column="bright")
        plugins = SimpleNamespace(get=lambda kind, name: spec, load_target=lambda spec: target)
        monkeypatch.setattr(scoring, "get_plugins", lambda: plugins)
        Image.fromarray(np.full((16, 24, 3), 100, np.uint8)).save(tmp_path / "grey.png")
        work = scoring.make_scorer({"scorers": [{"name": "bright", "options": {}, "weights": {}}]}, "cpu")
        (made,) = work([{"path": str(tmp_path / "grey.png")}])
        return made

    return run


def test_right(score):
    made = score(Bright)
    assert (made.rows[0]["bright"], made.reason) == (100.0, None)


def test_a_column_that_the_spec_does_not_name(score):
    made = score(type("Misspelt", (Bright,), {"column": "brigt"}))
    assert made.rows[0]["bright"] is None
    assert made.reason == "bright: it gives brigt, which its spec does not name"


@pytest.mark.parametrize("frame", [1, -1])
def test_a_frame_that_the_clip_has_not(score, frame):
    made = score(type("Beyond", (Bright,), {"frame": frame}))
    assert made.reason == f"bright: it asks for frame {frame} of 1, counted from 0"


def test_another_signature(score):
    with pytest.raises(SoraError, match="the scorer bright does not start: TypeError"):
        score(type("NoArguments", (Bright,), {"__init__": lambda self: None}))
