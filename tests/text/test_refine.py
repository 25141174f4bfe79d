"""Reading what a language model answers, and keeping it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from chat_server import completion, failure, serve

from sora_cli.text.chat import ChatError, Service
from sora_cli.text.prompts import parse_prompt, split_segments
from sora_cli.text.refine import MOST_CHARACTERS, Refiner, cache_folder, clean_answer, motion_score

KEY = "sk-proj-0123456789abcdef"


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("A fox runs.", "A fox runs."),
        ("  A fox\n\n runs.\t", "A fox runs."),
        ('"A fox runs."', "A fox runs."),
        ("“A fox runs.”", "A fox runs."),
        ("'\"A fox.\"'", "A fox."),
        ('"Open" is on the sign.', '"Open" is on the sign.'),
        ('"Open" turns to "Closed"', '"Open" turns to "Closed"'),
        ("<think>a fox?\nyes</think>\nA fox.", "A fox."),
        ("A fox \x1b[2Jruns\x00.", "A fox [2Jruns ."),
        ("A \ud800fox.", "A fox."),
        ("Ein Fuchs, ☕.", "Ein Fuchs, ☕."),
    ],
)
def test_clean_answer(answer: str, text: str) -> None:
    assert clean_answer(answer) == text


@pytest.mark.parametrize("answer", ["", " ", '""', "...", "<think>only thoughts", "{}|"])
def test_nothing_is_left(answer: str) -> None:
    with pytest.raises(ChatError, match="empty"):
        clean_answer(answer)


@pytest.mark.parametrize("answer", ['a fox{"aes": 9}', "|0|a fox|x|b", '{"prompt": "a fox"}', "a {aes: fox"])
def test_an_answer_is_no_prompt_syntax(answer: str) -> None:
    text = clean_answer(answer)
    assert parse_prompt(text).text == text
    assert split_segments(f"|0|{text}|1|b")[0].text == text
    assert [segment.text for segment in split_segments(text)] == [text]


def test_long_answers_end_with_a_sentence_or_a_word() -> None:
    sentence = "The fox runs over 2.5 miles of snow. "
    text = clean_answer(sentence * 100)
    assert MOST_CHARACTERS - len(sentence) <= len(text) <= MOST_CHARACTERS
    assert text.endswith("snow.")
    words = clean_answer("word " * 1000)
    assert len(words) <= MOST_CHARACTERS
    assert words.endswith("word")
    assert len(clean_answer("x" * 5000)) == MOST_CHARACTERS


@pytest.mark.parametrize(("answer", "score"), [("40", 40), (" 0\n", 0), ('"100".', 100), ("<think>5?</think> 7", 7)])
def test_motion_score(answer: str, score: int) -> None:
    assert motion_score(answer) == score


@pytest.mark.parametrize("answer", ["", "101", "-5", "4.5", "lively", "40 of 100", "1e1", "٤"])
def test_no_motion_score(answer: str) -> None:
    with pytest.raises(ChatError, match="no whole number from 0 to 100"):
        motion_score(answer)


def test_what_is_asked_for_each_kind() -> None:
    with serve(lambda question: f"answer to {question.user}") as chat:
        refiner = Refiner(Service("m", chat.url, 30, KEY))
        assert refiner.prompt(" a fox ", "video") == "answer to a fox"
        assert refiner.prompt("a fox", "image") == "answer to a fox"
        assert refiner.prompt("a fox", "picture", picture=b"1") == "answer to a fox"
        assert refiner.prompt(" ", "video", idea=7) == "answer to Write prompt number 7."
        assert refiner.prompt(" ", "video", idea=8) == "answer to Write prompt number 8."
    video, image, picture, invented, _ = chat.questions
    assert "rewrite it" in video.system
    assert "short video" in video.system
    assert "still picture" in image.system
    assert "attached picture" in picture.system
    assert "Invent one prompt" in invented.system
    for question in chat.questions:
        assert "answer in english" in question.system.lower()
        examples = question.system.partition("Examples of good prompts:\n\n")[2].splitlines()
        assert len(examples) == 10
        assert all(len(example) > 250 for example in examples)


def test_an_answer_is_asked_for_once_and_kept() -> None:
    answers = iter("abcdefghij")
    with serve(lambda _: next(answers)) as chat:

        def ask(
            text: str = "fox",
            kind: str = "video",
            *,
            model: str = "m",
            url: str = chat.url,
            picture: bytes | None = None,
        ) -> str | None:
            return Refiner(Service(model, url, 30, KEY)).prompt(text, kind, picture=picture)

        assert [ask(), ask()] == ["a", "a"]
        others = [ask("cat"), ask(kind="image"), ask(model="n"), ask(url=f"{chat.url}/"), ask(picture=b"1")]
        assert [*others, ask(picture=b"2")] == ["b", "c", "d", "e", "f", "g"]
        assert len(chat.questions) == 7
    kept = [path.read_text() for path in cache_folder().iterdir()]
    assert cache_folder() == Path.home() / "cache" / "sora" / "refined"
    assert len(kept) == 7
    assert not any("sk-proj" in text or chat.url in text for text in kept)
    assert {"model": "m", "asked": "fox", "answer": "a"} in [json.loads(text) for text in kept]
    assert Refiner(Service("m", chat.url, 30, KEY), may_ask=False).prompt("fox", "video") == "a", "nobody listens now"


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"answer": 5}', '{"answer": "lively"}'])
def test_a_damaged_file_is_written_again(damage: str) -> None:
    with serve(lambda _: "40") as chat:
        refiner = Refiner(Service("m", chat.url, 30, KEY))
        assert refiner.motion("fox") == 40
        [path] = cache_folder().iterdir()
        path.write_text(damage)
        assert refiner.motion("fox") == 40
        assert json.loads(path.read_text())["answer"] == "40"
    assert len(chat.questions) == 2


def test_an_answer_that_cannot_be_kept(capsys: pytest.CaptureFixture[str]) -> None:
    cache_folder().parent.mkdir(parents=True)
    cache_folder().write_text("a file in the way")
    with serve(lambda _: "fine") as chat:
        assert Refiner(Service("m", chat.url, 30, KEY)).prompt("fox", "video") == "fine"
    assert "warning: the answer cannot be kept" in capsys.readouterr().err


def test_a_service_that_is_down_is_asked_once(capsys: pytest.CaptureFixture[str]) -> None:
    with serve(lambda _: failure(401)) as chat:
        refiner = Refiner(Service("m", chat.url, 30, KEY))
        assert [refiner.prompt(text, "video") for text in ("a", "b", "c")] == [None] * 3
    assert len(chat.questions) == 1
    said = capsys.readouterr().err
    assert said.count("warning:") == 1
    assert "the prompt 'a' is not refined: the key is not accepted (HTTP 401); 127.0.0.1" in said


def test_a_refusal_is_of_one_prompt(capsys: pytest.CaptureFixture[str]) -> None:
    with serve(lambda question: completion(None, refusal="No.") if question.user == "a" else "fine") as chat:
        refiner = Refiner(Service("m", chat.url, 30, KEY))
        assert [refiner.prompt(text, "video") for text in ("a", "b", "a")] == [None, "fine", None]
    assert len(chat.questions) == 2
    assert capsys.readouterr().err.count("warning: the prompt 'a' is not refined: the model refused: No.") == 1


def test_a_dry_run_asks_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    with serve(lambda _: "fine") as chat:
        assert Refiner(Service("m", chat.url, 30, KEY), may_ask=False).prompt("fox", "video") is None
    assert chat.questions == []
    assert "the prompt 'fox' is not refined: m was not asked before, and a dry run" in capsys.readouterr().err
