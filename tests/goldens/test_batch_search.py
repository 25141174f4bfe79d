"""Golden topic `batch_search`: the sizes that are tried, in order."""

from __future__ import annotations

import pytest
from loader import cases

from sora_cli.training.batch_search import NoDataError, search_batch_size


@pytest.mark.parametrize("case", cases("batch_search", "search"))
def test_search(case):
    cost, probes = case["cost_model"], []

    def measure(size):
        if cost["no_data"]:
            probes.append([size, -1])
            raise NoDataError
        seconds = None if size > cost["out_of_memory_above"] else cost["a"] + cost["c"] * size
        probes.append([size, seconds])
        return seconds

    found = search_batch_size(measure, case["lower"], case["upper"], case["reference_step_time"])
    assert [size for size, _ in probes] == [size for size, _ in case["probes"]]
    for (_, seconds), (_, wanted) in zip(probes, case["probes"], strict=True):
        assert seconds == (None if wanted is None else pytest.approx(wanted))
    assert (found.batch_size, found.seconds) == (case["batch_size"], pytest.approx(case["step_time"]))
