"""YAML as we read it, and where files are looked for."""

from __future__ import annotations

import pytest

from sora_cli.config.files import parse_value, project_file, read_yaml, user_file
from sora_cli.errors import UsageError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("16:9", "16:9"),  # YAML 1.1: 969
        ("no", "no"),  # YAML 1.1: False
        ("2024-01-31", "2024-01-31"),  # YAML 1.1: a date
        ("010", 10),  # YAML 1.1: 8
        ("1e-3", 0.001),  # YAML 1.1: text
        ("true", True),
        ("-3", -3),
        (".5", 0.5),
        ("null", None),
        ("", None),
        ("'12'", "12"),
        ("2s", "2s"),
        ("[1, 2.5, a]", [1, 2.5, "a"]),
        ("{a: {b: 1}}", {"a": {"b": 1}}),
        ("&x [1]", [1]),
    ],
)
def test_scalars_follow_yaml_1_2(text, value):
    result = parse_value(text, source="test")
    assert result == value
    assert type(result) is type(value)


def test_lines_of_keys(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("sampling:\n  steps: 3\nlist:\n  - when: {gpus: 2}\n")
    document = read_yaml(path)
    assert document.data == {"sampling": {"steps": 3}, "list": [{"when": {"gpus": 2}}]}
    assert document.where("sampling.steps") == f"{path}:2"
    assert document.where("list.0.when.gpus") == f"{path}:4"
    assert document.where("sampling.other") == f"{path}:1"
    assert document.where() == str(path)


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", 3, "not valid YAML"),
        ("a: b: c\n", 1, "not valid YAML"),
        ("a:\n\t- 1\n", 2, "not valid YAML"),
        ("a: 1\nb: 2\na: 3\n", 3, "'a' was given before, in line 1"),
        ("x: {a: 1, a: 2}\n", 1, "'a' was given before"),
        ("a: !!python/object/apply:os.system [ls]\n", 1, "not allowed"),
        ("a: !secret x\n", 1, "not allowed"),
        ("? [1, 2]\n: 3\n", 1, "plain text"),
        ("a: &x [*x]\n", 1, "contains itself"),
        ("a: 1\n---\nb: 2\n", 2, "not valid YAML"),
    ],
)
def test_corrupt_files_name_file_and_line(tmp_path, text, line, word):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_yaml(path)
    assert caught.value.message.startswith(f"{path}:{line}: ")
    assert word in caught.value.message


@pytest.mark.parametrize("text", ["a:\n\t- 1\n", "é:\n  b: 1\n\tc: 2\n"])
def test_a_tab_gets_advice(tmp_path, text):
    path = tmp_path / "tab.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_yaml(path)
    assert caught.value.hint == "indent with spaces, not with tabs"


def test_unreadable_files(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        read_yaml(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot read"):
        read_yaml(tmp_path / "binary.yaml")
    with pytest.raises(UsageError, match="cannot read"):
        read_yaml(tmp_path)


def test_the_nearest_project_file(tmp_path):
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "sora.yaml").touch()
    assert project_file(inner) == tmp_path / "sora.yaml"
    (tmp_path / "a" / "sora.yaml").touch()
    assert project_file(inner) == tmp_path / "a" / "sora.yaml"


def test_the_user_file(tmp_path):
    assert user_file({"HOME": str(tmp_path)}) is None
    place = tmp_path / ".config" / "sora" / "config.yaml"
    place.parent.mkdir(parents=True)
    place.touch()
    assert user_file({"HOME": str(tmp_path)}) == place
    assert user_file({"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "x")}) is None
