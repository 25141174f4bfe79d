"""Which picture a language model is shown of what a clip is given."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from media import greys, save_video
from PIL import Image

from sora_cli.conditioning.mask_strategy import parse_strategy
from sora_cli.conditioning.references import Extension, Given, Still
from sora_cli.tasks import refine

FILES = (Path("a.png"), Path("b.png"))


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (Given(FILES, stills=(Still(0, 5, 1), Still(1, 9, 0))), ("b.png", False)),
        (Given(FILES, stills=(Still(0, 5), Still(1, 9))), ("a.png", False)),
        (Given(FILES, groups=parse_strategy("0,1")), ("b.png", False)),
        (Given(FILES, groups=parse_strategy("0,0,0,-1;0,1")), ("b.png", False)),
        (Given(FILES[:1], stills=(Still(0, 9),), extension=Extension(Path("v.mp4"), "", 17, 24, 41)), ("v.mp4", True)),
    ],
)
def test_the_earliest_picture_is_shown(given, shown, monkeypatch) -> None:
    monkeypatch.setattr(refine, "_open", lambda path, fps, *, is_last: (path.name, is_last))
    monkeypatch.setattr(refine, "_small_jpeg", lambda image: image)
    assert refine._first_picture(given, {}, 24.0) == shown


def test_the_last_frame_of_a_variable_rate_is_shown_without_a_word(capsys) -> None:
    """What happens to its frames is said when the clip is made."""
    video = Path("v.mp4")
    save_video(video, greys(3), [0, 2, 12])
    given = Given(extension=Extension(video, "", 5, 24, 29))
    shown = refine._first_picture(given, {}, 24.0)
    with Image.open(io.BytesIO(shown)) as image:
        assert np.asarray(image)[4:-4, 4:-4].mean() == pytest.approx(30, abs=3), "the third of the greys"
    assert capsys.readouterr().err == ""
