"""Counts golden cases that passed and that were excepted, and prints the counts at the end of the run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

HERE = Path(__file__).parent
EXCEPTED = "excepted: "  # as in loader.py
COUNTS = pytest.StashKey[dict[str, Counter]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[COUNTS] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    report = yield
    counts = item.config.stash.setdefault(COUNTS, {}).setdefault(item.path.stem.removeprefix("test_"), Counter())
    if report.when == "call" or report.outcome != "passed":
        reason = report.longrepr[2] if report.skipped and isinstance(report.longrepr, tuple) else ""
        counts["excepted" if EXCEPTED in reason else report.outcome] += report.when != "teardown"
    return report


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    topics = config.stash.get(COUNTS, {})
    if not topics:
        return
    terminalreporter.section("goldens")
    words = ("passed", "excepted", "failed", "skipped")
    for topic, counts in sorted(topics.items()):
        terminalreporter.line(f"{topic}: " + ", ".join(f"{counts[word]} {word}" for word in words if counts[word]))
    total = sum(topics.values(), Counter())
    terminalreporter.line("all: " + ", ".join(f"{total[word]} {word}" for word in words))
