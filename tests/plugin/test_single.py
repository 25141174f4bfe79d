from __future__ import annotations

from types import SimpleNamespace

import pytest

from sora_cli.errors import UsageError
from sora_cli.plugin.manager import get_plugins


def _parallelize():
    plugins = get_plugins()
    return plugins.load_target(plugins.get("parallelism", "single"))


@pytest.mark.parametrize("mesh", [None, SimpleNamespace(size=lambda: 1)])
def test_one_device_gets_the_model_back(mesh: SimpleNamespace | None) -> None:
    model = object()
    assert _parallelize()(model, mesh, None) is model


def test_more_devices_are_refused() -> None:
    with pytest.raises(UsageError, match="runs on one device, not on 4") as error:
        _parallelize()(object(), SimpleNamespace(size=lambda: 4), None)
    assert error.value.exit_code == 2


def test_none_is_another_name_for_it() -> None:
    assert get_plugins().get("parallelism", "none").name == "single"
