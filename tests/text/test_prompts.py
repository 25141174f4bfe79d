"""Reading prompts and their syntax (generation.md sections 5 and 6)."""

import io
import sys
from pathlib import Path

import pytest

from sora_cli.errors import UsageError
from sora_cli.text.prompts import Prompt, Segment, check_text, parse_prompt, read_prompts, split_segments


@pytest.mark.parametrize(
    ("content", "start", "end", "expected"),
    [
        ("one\n two  \n\nfour\n", 0, None, ["one", "two", "", "four"]),
        ("one\ntwo\nthree\nfour", 1, 3, ["two", "three"]),
        ("one\ntwo\nthree", 2, 100, ["three"]),
        ("one\ntwo\nthree", 0, -1, ["one", "two"]),
        ("one\r\ntwo\r\n", 0, None, ["one", "two"]),
        ("\ufeffone\u2028still one\n", 0, None, ["one\u2028still one"]),
        ("one\n\nthree\n", 1, 2, [""]),
        ("\n  \n", 0, None, ["", ""]),
    ],
)
def test_prompt_file(tmp_path: Path, content: str, start: int, end: int | None, expected: list[str]) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes(content.encode())
    assert read_prompts((), str(file), start, end) == expected


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a cat\na dog\n")))
    assert read_prompts((), "-") == ["a cat", "a dog"]


def test_arguments_win_over_the_file_and_are_not_cut() -> None:
    assert read_prompts(("a", "b", ""), "absent.txt", 1, 1) == ["a", "b", ""]


@pytest.mark.parametrize(
    ("prompts", "content", "start", "message"),
    [
        ((), None, 0, "no prompt"),
        ((), b"", 0, "no prompt of"),
        ((), b"a\n", 5, "no prompt in lines 5:"),
        ((), b"\xff\xfea", 0, "not UTF-8"),
    ],
)
def test_no_usable_prompt(
    tmp_path: Path, prompts: tuple[str, ...], content: bytes | None, start: int, message: str
) -> None:
    file = tmp_path / "prompts.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_prompts(prompts, None if content is None else str(file), start)


@pytest.mark.parametrize("name", ["absent.txt", "~nobody-of-this-name/prompts.txt"])
def test_absent_file(name: str) -> None:
    with pytest.raises(UsageError, match="cannot read the prompt file"):
        read_prompts((), name)


def test_text_that_is_none() -> None:
    check_text("瀑布 🌊")
    with pytest.raises(UsageError, match=r"not valid Unicode text: 'a \\\\udcff b' \(character 2\)"):
        check_text(b"a \xff b".decode(errors="surrogateescape"))


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("a cat", Prompt("a cat")),
        ('a cat{"aes": 5, "flow": 2.5}', Prompt("a cat", {"aes": 5, "motion": 2.5})),
        ('waves. {"camera_motion": "pan left"}', Prompt("waves. ", {"camera": "pan left"})),
        (
            'x{"ms": "0", "reference_path": "a.png;b.mp4"}',
            Prompt("x", {"mask_strategy": "0", "reference_path": "a.png;b.mp4"}),
        ),
        ('x{"motion": null}', Prompt("x", {"motion": None})),
        ("x{}", Prompt("x", {})),
        # Braces that are not settings are text.
        ("a {b", Prompt("a {b")),
        ("a {weird} sign", Prompt("a {weird} sign")),
        ('a {weird} sign{"aes": 6}', Prompt("a {weird} sign", {"aes": 6})),
        ('naïve ☕{"camera": "é"}', Prompt("naïve ☕", {"camera": "é"})),
        ('{"a":' * 2000, Prompt('{"a":' * 2000)),
    ],
)
def test_parse_prompt(raw: str, expected: Prompt) -> None:
    assert parse_prompt(raw) == expected


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ('x{"aess": 5}', "unknown key 'aess'"),
        ('x{"aes": "high"}', "'aes' .* must be a number"),
        ('x{"aes": true}', "'aes' .* must be a number"),
        ('x{"aes": -1}', "'aes' .* must be a number from 0 on"),
        ('x{"aes": NaN}', "'aes' .* must be a number from 0 on"),
        ('x{"motion": 1e400}', "'motion' .* must be a number from 0 on"),
        ('x{"motion": 1' + "0" * 400 + "}", "'motion' .* must be a number from 0 on"),
        ('x{"camera": 3}', "'camera' .* must be a string"),
        ('x{"reference_path": {"a": 1}}', "must be a string"),
        ('x{"motion": 1, "flow": 2}', "'motion' is given twice"),
        ('x{"aes": 5', "not valid JSON"),
        ('x{"aes": 5} tail', "not valid JSON"),
        ("x{'aes': 5}", "not valid JSON"),
        ('x{"aes": 5}{"flow": 3}', "has settings twice"),
        ('x{"aes": 5} y{"flow": 3}', "has settings twice"),
        ("x{}{}", "has settings twice"),
        ('x{"aes":' * 2000, "not valid JSON"),
    ],
)
def test_wrong_settings(raw: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_prompt(raw)


def test_misspelt_key_has_a_suggestion() -> None:
    with pytest.raises(UsageError) as caught:
        parse_prompt('x{"camera_moton": "pan left"}')
    assert caught.value.hint == "did you mean 'camera_motion'?"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a cat", [Segment(0, "a cat")]),
        ("|0|a|2|b", [Segment(0, "a"), Segment(2, "b")]),
        ("|0| fog |1| heat", [Segment(0, "fog"), Segment(1, "heat")]),
        ("|1|late|2|x", [Segment(0, "|1|late|2|x")]),
        (" |0|a|1|b", [Segment(0, " |0|a|1|b")]),
        ("", [Segment(0, "")]),
    ],
)
def test_split_segments(text: str, expected: list[Segment]) -> None:
    assert split_segments(text) == expected


@pytest.mark.parametrize("text", ["|0|a|x|b", "|0|a|2", "|0|a||b", "|0|a|2|b|2|c"])
def test_wrong_segments(text: str) -> None:
    with pytest.raises(UsageError):
        split_segments(text)
