"""Topics of GOLDENS_DIR that no adapter reads yet are skipped by name, so that a run shows what it did not check."""

from __future__ import annotations

import pytest
from loader import HERE, goldens_dir

#: Read by tests of their own: key lists of the released checkpoints (tests/stdit).
NO_TOPICS = {"manifests", "__pycache__"}


def topics_without_adapter() -> list[str]:
    folders = {path.name for path in goldens_dir().iterdir() if path.is_dir()}
    return sorted(folders - NO_TOPICS - {path.stem.removeprefix("test_") for path in HERE.glob("test_*.py")})


@pytest.mark.parametrize("topic", topics_without_adapter())
def test_topic_without_adapter(topic: str) -> None:
    pytest.skip(f"no adapter for golden topic {topic!r} yet")


def test_every_stored_topic_has_an_adapter() -> None:
    stored = {path.name for path in HERE.iterdir() if path.is_dir()} - NO_TOPICS
    assert {"aspect", "resolutions", "rflow", "stdit3", "stdit_modules"} <= stored
    assert not [topic for topic in stored if not (HERE / f"test_{topic}.py").is_file()]
