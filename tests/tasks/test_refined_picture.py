"""Which picture a language model is shown of what a clip is given."""

from __future__ import annotations

from pathlib import Path

import pytest

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
    monkeypatch.setattr(refine, "_open", lambda path, *, is_last: (path.name, is_last))
    monkeypatch.setattr(refine, "_small_jpeg", lambda image: image)
    assert refine._first_picture(given, {}) == shown
