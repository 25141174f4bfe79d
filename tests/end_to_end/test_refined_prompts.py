"""`--refine`: prompts that a language model rewrites before clips are made, against a service on this machine."""

from __future__ import annotations

import base64
import io
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_server import Chat, Question, failure, serve
from executable import SHAPE, Executable, files_in, frames_of
from PIL import Image

from sora_cli.video.io import write_video

KEY = "sk-proj-0123456789abcdef"
NANO = ("-m", "nano", "--size", "96x168", "--frames", "17", "--steps", "2")


def reply(question: Question) -> str:
    return "40" if "motion score of a video" in question.system else f"Refined: {question.user}."


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> Iterator[Chat]:
    with serve(reply) as chat:
        monkeypatch.setenv("OPENAI_BASE_URL", chat.url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        yield chat


@pytest.fixture
def tiny(sora: Callable[..., Any], tiny_site: Path, add_site: Callable[[Path], None]) -> Callable[..., Any]:
    """`sora COMMAND ...` with the tiny model at a tiny size; the exit code must be `code`."""
    add_site(tiny_site)

    def run(*arguments: str, code: int = 0) -> Any:
        shape = [each for each in SHAPE if each not in ("--frames", "17")] if "--frames" in arguments else SHAPE
        done = sora(*arguments, *shape)
        assert done.code == code, done.err
        assert "Traceback" not in done.err
        assert "0123456789abcdef" not in done.out + done.err
        return done

    return run


@pytest.fixture
def nano(sora: Callable[..., Any]) -> Callable[..., Any]:
    """`sora COMMAND ...` with the embedded model, which takes pictures; the exit code must be `code`."""

    def run(*arguments: str, code: int = 0) -> Any:
        done = sora(*arguments, "-m", "nano", "--steps", "1", "--threads", "1")
        assert done.code == code, done.err
        return done

    return run


def stored(path: str) -> dict[str, Any]:
    text = Path(f"{path}.json").read_text()
    assert "0123456789abcdef" not in text
    return json.loads(text)


def test_a_clip_of_the_embedded_model(chat: Chat, executable: Executable) -> None:
    run = ("generate", "une cascade", *NANO, "--refine", "--refine-model", "m")
    done = executable(*run, "--json")
    [record] = json.loads(done.stdout)
    assert record["path"] == "outputs/une-cascade-42.mp4"
    assert (record["prompt"], record["refined"]) == ("une cascade", "Refined: une cascade.")
    assert "asking m at 127.0.0.1" in done.stderr
    assert "refined by m: Refined: une cascade." in done.stderr
    made = executable.folder / record["path"]
    assert frames_of(made).shape == (17, 96, 168, 3)
    assert KEY.encode() not in made.read_bytes()
    settings = json.loads(made.with_name(f"{made.name}.json").read_text())
    assert (settings["prompt"], settings["text"]) == ("une cascade", "Refined: une cascade. aesthetic score: 6.5.")
    assert settings["config"]["prompt"]["refined"] == [{"text": "Refined: une cascade.", "model": "m"}]
    # Nobody is asked again: not for the same command, and not by --from, which needs no key either.
    again = executable(*run, "-q")
    assert (again.stdout, again.stderr) == (f"{record['path']}\n", "")
    executable("generate", "--from", str(made), "-o", "again.mp4", OPENAI_BASE_URL="", OPENAI_API_KEY="")
    assert (executable.folder / "again.mp4").read_bytes() == made.read_bytes()
    assert [question.body["model"] for question in chat.questions] == ["m"]


def test_ctrl_c_while_waiting(executable: Executable) -> None:
    with serve(lambda _: None) as silent:
        process = executable.start("generate", "a fox", *NANO, "--refine", OPENAI_BASE_URL=silent.url)
        assert silent.arrived.wait(60), "the question never came"
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=30)
    assert (process.returncode, output) == (130, "")
    assert errors.endswith("interrupted\n")
    assert "Traceback" not in errors
    assert files_in(executable.folder) == []


def test_several_processes_ask_once(chat: Chat, executable: Executable) -> None:
    (executable.folder / "prompts.txt").write_text("a fox\n\na cat\n")
    shared = ("--prompt-file", "prompts.txt", *SHAPE, "--device", "cpu", "--gpus", "2", "--sequence-parallel", "1")
    done = executable("generate", *shared, "--refine", "--refine-motion", "-o", "out", "--json")
    records = json.loads(done.stdout)
    assert [record["refined"] for record in records] == [
        "Refined: a fox.",
        "Refined: Write prompt number 42..",
        "Refined: a cat.",
    ]
    assert len(chat.questions) == 6
    text = json.loads((executable.folder / "out" / "a-fox-42.mp4.json").read_text())["text"]
    assert text == "Refined: a fox. motion score: 40.0."
    assert done.stderr.count("refined by") == 3


def test_scores_follow_and_prompts_are_refined_once(tiny: Callable[..., Any], chat: Chat) -> None:
    prompts = ("a fox", 'a cat{"aes": 6}')
    tiny("generate", *prompts, "--refine", "--camera", "pan left", "--num-samples", "2", "-o", "out")
    assert [question.user for question in chat.questions] == ["a fox", "a cat"]
    assert files_in(Path("out"))[::2] == ["a-cat-42.mp4", "a-cat-43.mp4", "a-fox-42.mp4", "a-fox-43.mp4"]
    assert stored("out/a-fox-43.mp4")["text"] == "Refined: a fox. camera motion: pan left."
    assert stored("out/a-cat-42.mp4")["text"] == "Refined: a cat. aesthetic score: 6.0. camera motion: pan left."


def test_every_segment_is_refined(tiny: Callable[..., Any], chat: Chat) -> None:
    chat.answer = lambda question: failure(400) if question.user == "b" else f"{question.user}|9|{{x}}"
    done = tiny("generate", "|0|a|2|b|3| c ", "--refine", "-o", "x.mp4", "--json")
    assert [question.user for question in chat.questions] == ["a", "b", "c"]
    assert json.loads(done.out)[0]["refined"] == "|0|a 9 x|2|b|3|c 9 x"
    assert stored("x.mp4")["text"] == "a 9 x"
    assert "warning: the prompt 'b' is not refined: the service failed (HTTP 400)" in done.err
    again = tiny("generate", "--from", "x.mp4", "-o", "y.mp4")
    assert "asking" not in again.err
    assert Path("x.mp4").read_bytes() == Path("y.mp4").read_bytes()


def test_every_part_has_its_refined_text(nano: Callable[..., Any], chat: Chat) -> None:
    nano("generate", "|0|a|1|b", "--refine", "--segments", "2", "--size", "96x96", "--frames", "34", "-o", "x.mp4")
    settings = stored("x.mp4")
    assert settings["text"].startswith("Refined: a.")
    assert settings["later_texts"][0].startswith("Refined: b.")


def test_an_image(tiny: Callable[..., Any], chat: Chat) -> None:
    done = tiny("generate", "a fox", "--refine", "--refine-motion", "--frames", "1", "-o", "x.png")
    assert "a single still picture" in chat.questions[0].system
    assert len(chat.questions) == 1
    assert "a single frame does not move" in done.err


def test_the_motion_score_alone(tiny: Callable[..., Any], chat: Chat) -> None:
    prompts = ("a fox", 'a cat{"motion": 5}', 'a dog{"flow": null}')
    done = tiny("generate", *prompts, "--refine-motion", "-o", "out")
    assert [question.user for question in chat.questions] == ["a fox"]
    assert stored("out/a-fox-42.mp4")["text"] == "a fox motion score: 40.0."
    assert stored("out/a-cat-42.mp4")["text"] == "a cat motion score: 5.0."
    assert stored("out/a-dog-42.mp4")["text"] == "a dog"
    assert "a motion score is given" in done.err
    tiny("generate", "--from", "out/a-fox-42.mp4", "-o", "again.mp4")
    assert Path("again.mp4").read_bytes() == Path("out/a-fox-42.mp4").read_bytes()
    tiny("generate", "--from", "out/a-fox-42.mp4", "--motion", "7", "-o", "other.mp4")
    assert stored("other.mp4")["text"] == "a fox motion score: 7.0."
    assert len(chat.questions) == 1
    chat.answer = lambda _: "very lively"
    done = tiny("generate", "a cow", "--refine-motion", "-o", "cow.mp4")
    assert "'very lively' is no whole number from 0 to 100" in done.err
    assert stored("cow.mp4")["text"] == "a cow"


def test_missing_prompts_are_made_up(tiny: Callable[..., Any], chat: Chat) -> None:
    first = tiny("generate", "--refine", "--json")
    [record] = json.loads(first.out)
    assert record["path"] == "outputs/refined-write-prompt-number-42-42.mp4"
    assert (record["prompt"], record["refined"]) == ("", "Refined: Write prompt number 42..")
    again = json.loads(tiny("generate", "--refine", "--json").out)
    assert (again[0]["path"], again[0]["status"]) == (record["path"], "skipped")
    assert json.loads(tiny("generate", "--refine", "--seed", "7", "--json").out)[0]["refined"].endswith("number 7..")
    tiny("generate", "--from", record["path"], "-o", "again.mp4")
    assert Path("again.mp4").read_bytes() == Path(record["path"]).read_bytes()
    assert len(chat.questions) == 2
    Path("prompts.txt").write_text("\n\na fox\n")
    lines = tiny("generate", "--prompt-file", "prompts.txt", "--refine", "-n", "--json")
    assert json.loads(lines.out)["refined"] == {record["path"]: "Refined: Write prompt number 42.."}
    assert "no prompt is made up: gpt-4o was not asked before" in lines.err
    assert len(chat.questions) == 2


def decoded(question: Question) -> np.ndarray:
    assert question.picture is not None
    kind, _, data = question.picture.partition(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        return np.asarray(image).astype(float)


def picture(path: str, colour: tuple[int, int, int], size: tuple[int, int] = (64, 96)) -> str:
    Image.new("RGB", size[::-1], colour).save(path)
    return path


def test_the_model_sees_the_first_picture(nano: Callable[..., Any], chat: Chat) -> None:
    red, blue = picture("red.png", (200, 10, 20), (900, 1600)), picture("blue.png", (10, 20, 200))
    shape = ("--size", "96x96", "--frames", "17", "--refine")
    nano("i2v", red, "a fox", "--last", blue, *shape, "--refine-motion", "-o", "x.mp4")
    nano("i2v", red, "", *shape, "-o", "y.mp4")
    for question in chat.questions:
        pixels = decoded(question)
        assert pixels.shape == (432, 768, 3)
        assert np.abs(pixels - (200, 10, 20)).max() < 4
    assert [question.user for question in chat.questions] == ["a fox", "Refined: a fox.", "Write prompt number 42."]
    assert "attached picture" in chat.questions[0].system
    assert stored("x.mp4")["text"] == "Refined: a fox. aesthetic score: 6.5. motion score: 40.0."
    picture("red.png", (0, 200, 0), (900, 1600))
    nano("i2v", red, "a fox", *shape, "-o", "green.mp4")
    assert np.abs(decoded(chat.questions[-1]) - (0, 200, 0)).max() < 4, "another picture is another question"


@pytest.mark.parametrize(("arguments", "frame"), [((), -1), (("--backward",), 0)])
def test_the_model_sees_where_a_video_goes_on(
    nano: Callable[..., Any], chat: Chat, arguments: tuple[str, ...], frame: int
) -> None:
    source = np.stack([np.full((96, 96, 3), 40 + 10 * number, np.uint8) for number in range(17)])
    write_video(Path("x.mp4"), iter([source]), 24.0, {})
    nano("extend", "x.mp4", "a waterfall", "--by", "0.2s", "--refine", *arguments, "-o", "y.mp4")
    [question] = chat.questions
    assert np.abs(decoded(question) - source[frame]).max() < 6


def test_a_picture_that_cannot_be_read(nano: Callable[..., Any], chat: Chat) -> None:
    Path("bad.png").write_text("no picture")
    assert "bad.png" in nano("i2v", "bad.png", "a fox", "--refine", code=1).err
    assert chat.questions == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ("a fox",),
            0,
            "warning: the prompt 'a fox' is not refined: the quota or the rate limit is used up (HTTP 429)",
        ),
        ((), 1, "error: there is no prompt, and none could be made up"),
        (("|0| |1|a fox",), 1, "error: there is no prompt, and none could be made up"),
        (("a fox", "--nnodes", "2", "--rdzv-endpoint", "h:1", "--device", "cpu"), 2, "each of several machines"),
        (("a fox", "--refine-model", ""), 2, "--refine-model"),
        (("a fox", "--refine-timeout", "0"), 2, "--refine-timeout"),
    ],
)
def test_failures(tiny: Callable[..., Any], chat: Chat, arguments: tuple[str, ...], code: int, message: str) -> None:
    chat.answer = lambda _: failure(429, f"quota of {KEY}")
    done = tiny("generate", *arguments, "--refine", "-o", "x.mp4", code=code)
    assert message in done.err
    if code:
        assert not Path("x.mp4").exists()
        return
    assert stored("x.mp4")["text"] == "a fox"
    asked = len(chat.questions)
    tiny("generate", "--from", "x.mp4", "-o", "y.mp4")
    assert Path("x.mp4").read_bytes() == Path("y.mp4").read_bytes()
    assert len(chat.questions) == asked, "a clip whose prompt was kept is made again as it is"


def test_a_service_that_does_not_answer_in_time(tiny: Callable[..., Any], chat: Chat) -> None:
    chat.answer = lambda _: None
    done = tiny("generate", "a fox", "a cat", "--refine", "--refine-timeout", "0.2", "-o", "out")
    assert done.err.count("warning:") == 1
    assert "is not refined: no answer within 0.2 s; 127.0.0.1" in done.err
    assert stored("out/a-cat-42.mp4")["text"] == "a cat"


def test_without_a_key(tiny: Callable[..., Any]) -> None:
    done = tiny("generate", "a fox", "--refine", "-o", "x.mp4")
    assert "the prompt 'a fox' is not refined: OPENAI_API_KEY is not set" in done.err
    assert stored("x.mp4")["text"] == "a fox"


def test_a_dry_run_asks_nobody(tiny: Callable[..., Any], chat: Chat) -> None:
    run = ("generate", "a fox", "--refine", "-o", "x.mp4")
    dry = tiny(*run, "-n", "--json")
    assert "gpt-4o was not asked before, and a dry run asks nobody" in dry.err
    assert "refined" not in json.loads(dry.out)
    assert chat.questions == []
    tiny(*run)
    plan = json.loads(tiny(*run, "-n", "--json").out)
    assert plan["refined"] == {"x.mp4": "Refined: a fox."}
    assert plan["files"] == {"x.mp4": "is there already, would be skipped"}
    assert len(chat.questions) == 1


def test_which_texts_a_clip_that_is_made_again_has(
    tiny: Callable[..., Any], chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("sora.yaml").write_text("prompt: {refine: true, refine_model: m}")
    tiny("generate", "a fox", "-o", "fox.mp4")
    tiny("generate", "a cat", "--no-refine", "-o", "cat.mp4")
    assert [question.body["model"] for question in chat.questions] == ["m"]
    plan = ("-n", "--json")
    assert "refined" not in json.loads(tiny("generate", "--from", "cat.mp4", *plan).out), "it had none"
    monkeypatch.setenv("SORA_PROMPT__REFINE_MODEL", "n")
    refined = {"outputs/a-fox-42.mp4": "Refined: a fox."}
    assert json.loads(tiny("generate", "--from", "fox.mp4", *plan).out)["refined"] == refined
    assert "refined" not in json.loads(tiny("generate", "--from", "fox.mp4", "--no-refine", *plan).out)
    assert "n was not asked before" in tiny("generate", "--from", "fox.mp4", "--refine", *plan).err
    monkeypatch.delenv("SORA_PROMPT__REFINE_MODEL")
    assert "the prompt 'a cow' is not refined: m was not" in tiny("generate", "a cow", "--from", "fox.mp4", *plan).err
