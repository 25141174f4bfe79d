"""Reads golden cases: one pytest parameter per JSON case.

The folder is GOLDENS_DIR, by default the one this file is in. A topic that is not there is skipped by name. Cases that
exceptions.yaml leaves out by rule are skipped with their reason and counted in the summary.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

HERE = Path(__file__).parent
# Made absolute here: tests run in a folder of their own.
GOLDENS = Path(os.environ.get("GOLDENS_DIR") or HERE).resolve()
EXCEPTED = "excepted: "


def goldens_dir() -> Path:
    """The folder with one folder per topic."""
    return GOLDENS


def read(topic: str, file: str) -> dict[str, Any]:
    """The content of `<topic>/<file>.json`; skips the test by name when the topic is absent."""
    path = goldens_dir() / topic / f"{file}.json"
    if not path.parent.is_dir():
        pytest.skip(f"golden topic {topic!r} is not in {goldens_dir()}")
    return json.loads(path.read_text())


def cases(topic: str, file: str, key: str = "cases") -> list[Any]:
    """Parameters for the cases of one file: dicts, with ids by position. key: where the JSON has its list of cases, in
    parts between dots.

    Cases that the JSON keeps under names get the name as field "name". A list under `rows` with `columns` beside it is
    read as a table. One skipped parameter when the topic is absent.
    """
    path = goldens_dir() / topic / f"{file}.json"
    if not path.parent.is_dir():
        reason = f"golden topic {topic!r} is not in {goldens_dir()}"
        return [pytest.param({}, id=f"{topic}-absent", marks=pytest.mark.skip(reason=reason))]
    content = json.loads(path.read_text())
    for part in key.split("."):
        content = content[part]
    if isinstance(content, dict) and "rows" in content:
        content = [dict(zip(content["columns"], row, strict=True)) for row in content["rows"]]
    elif isinstance(content, dict):
        content = [{"name": name, **case} for name, case in content.items()]
    assert content, f"{path} has no {key}"
    return [_parameter(topic, file, index, case) for index, case in enumerate(content)]


def of_operations(parameters: list[Any], *names: str) -> list[Any]:
    """The parameters of `cases` whose "op" is one of these; the one of an absent topic stays."""
    return [each for each in parameters if not each.values[0] or each.values[0]["params"]["op"] in names]


def load_tensors(topic: str, file: str) -> dict[str, Any]:
    """The tensors of `<topic>/<file>` (with its suffix), by name."""
    from safetensors.torch import load_file

    return load_file(goldens_dir() / topic / file)


def exceptions() -> list[dict[str, Any]]:
    """The rules of exceptions.yaml."""
    return yaml.safe_load((HERE / "exceptions.yaml").read_text())


def _parameter(topic: str, file: str, index: int, case: dict[str, Any]) -> Any:
    rule = _excepted(topic, file, case)
    marks = []
    if rule and "wanted" in rule:
        case = {**case, "wanted": rule["wanted"]}
    elif rule:
        marks = [pytest.mark.skip(reason=EXCEPTED + str(rule["reason"]))]
    name = case.get("name") or case.get("id") or index
    return pytest.param(case, id=f"{file}-{name}", marks=marks)


def _excepted(topic: str, file: str, case: dict[str, Any]) -> dict[str, Any] | None:
    """The first rule that fits: all its patterns match the whole text of the case's fields."""
    for rule in exceptions():
        if rule["topic"] == topic and rule.get("file", file) == file and _fits(rule["when"], case):
            return rule
    return None


def _fits(patterns: dict[str, str], case: dict[str, Any]) -> bool:
    return all(key in case and re.fullmatch(pattern, _text(case[key])) for key, pattern in patterns.items())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
