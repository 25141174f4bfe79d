"""Topics of GOLDENS_DIR that no adapter reads yet are skipped by name, so that a run shows what it did not check."""

from __future__ import annotations

import re

import pytest
from loader import HERE, goldens_dir

#: Read by tests of their own: key lists of the released checkpoints (tests/stdit).
NO_TOPICS = {"manifests", "__pycache__"}


def topics_with_adapter() -> set[str]:
    """Topics that a test module is called after or names as its TOPIC; one topic may have several modules."""
    modules = list(HERE.glob("test_*.py"))
    named = [re.search(r'^TOPIC\b.*? = "(\w+)"', path.read_text(), re.MULTILINE) for path in modules]
    return {path.stem.removeprefix("test_") for path in modules} | {match[1] for match in named if match}


def topics_without_adapter() -> list[str]:
    folders = {path.name for path in goldens_dir().iterdir() if path.is_dir()}
    return sorted(folders - NO_TOPICS - topics_with_adapter())


@pytest.mark.parametrize("topic", topics_without_adapter())
def test_topic_without_adapter(topic: str) -> None:
    pytest.skip(f"no adapter for golden topic {topic!r} yet")


def test_every_stored_topic_has_an_adapter() -> None:
    stored = {path.name for path in HERE.iterdir() if path.is_dir()} - NO_TOPICS
    assert {"aspect", "resolutions", "rflow", "stdit3", "stdit_modules"} <= stored
    assert stored <= topics_with_adapter()
