"""`sora data caption` and `sora data tag`, through the official client to a service on this machine."""

from __future__ import annotations

import base64
import io
import json
import shutil
import threading
from collections import Counter

import numpy as np
import pytest
from chat_server import Raw, completion, failure, serve
from media import greys, picture, save_video
from PIL import Image

pl = pytest.importorskip("polars")
pytest.importorskip("pebble")

from sora_cli.__main__ import main  # noqa: E402

KEY = "sk-proj-0123456789abcdef"
NAMES = ("dark", "light", "red", "blue")


@pytest.fixture
def clips(tmp_path):
    """A folder with two videos and two pictures, and a table of them."""
    save_video(tmp_path / "dark.mp4", greys(10))
    save_video(tmp_path / "light.mp4", greys(10, size=(80, 120), step=20))
    for colour in NAMES[2:]:
        (tmp_path / f"{colour}.png").write_bytes(picture(colour))
    rows = ["path,text,aes,flow", "dark.mp4,a dark room,4.5,1", "light.mp4,,5.25,2"]
    rows += ["red.png,something red,6,", "blue.png,rien,7,"]
    (tmp_path / "clips.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


@pytest.fixture
def ask(clips, capsys, monkeypatch):
    """Run a data command on the table: ask(chat, "caption", ...) -> (exit code, JSON, stderr, output rows)."""

    def run(chat, command, *arguments, table="clips.csv"):
        monkeypatch.setenv("OPENAI_BASE_URL", chat.url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        output = clips / "out.csv"
        shared = ("-o", str(output), "--json", "--workers", "1")
        code = main(["data", command, str(clips / table), *shared, *map(str, arguments)])
        captured = capsys.readouterr()
        assert KEY not in captured.out + captured.err
        rows = pl.read_csv(output).to_dicts() if output.exists() else None
        return code, json.loads(captured.out) if captured.out.strip() else None, captured.err, rows

    return run


def shown(question):
    """The frames of a question, as arrays."""
    return [np.array(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))) for url in question.pictures]


def name_of(question):
    """Which file of the table a question is about, by its first frame."""
    frame = shown(question)[0].mean(axis=(0, 1))
    if frame.max() - frame.min() > 100:
        return "red" if frame[0] > frame[2] else "blue"
    return "dark" if len(shown(question)) == 1 or shown(question)[0].shape[0] == 32 else "light"


def reasons(clips):
    found = clips / "out.bad.csv"
    listed = pl.read_csv(found).to_dicts() if found.exists() else []
    return {row["path"].rpartition("/")[2]: row["error"] for row in listed}


# -- what is asked ---------------------------------------------------------------------------------------------------


def test_captions_in_the_order_of_the_table(clips, ask):
    with serve(lambda question: completion(f"“A {name_of(question)}\n thing.”", tokens=(100, 7))) as chat:
        code, made, errors, rows = ask(chat, "caption", "--prompt", "f1", "--frames", "2", "-O", "temperature=0")
    assert code == 0, errors
    assert [row["text"] for row in rows] == [f"A {name} thing." for name in NAMES]
    assert set(rows[0]) == {"path", "text", "aes", "flow"}
    videos = [question for question in chat.questions if len(question.pictures) == 2]
    assert len(videos) == 2
    assert all("middle of a video" in question.user and "Examples of good" in question.user for question in videos)
    assert all(question.body["temperature"] == 0 and question.body["max_tokens"] == 300 for question in chat.questions)
    # Frames at a quarter and at three quarters of ten, which get lighter by 10 each.
    dark = next(question for question in videos if name_of(question) == "dark")
    assert [round(frame.mean() / 10) for frame in shown(dark)] == [3, 8]
    assert (made[0]["requests"], made[0]["prompt_tokens"], made[0]["answer_tokens"]) == (4, 400, 28)
    assert "cost" not in made[0]


def test_sizes_of_frames_and_what_they_cost(clips, ask):
    with serve(lambda question: completion("Something.", tokens=(1000, 100))) as chat:
        prices = ("-O", "price_prompt=2.5", "-O", "price_answer=10")
        code, made, errors, _ = ask(chat, "caption", "--shorter-size", "40", "--prompt", "short", *prices)
    assert code == 0, errors
    sizes = Counter(frame.shape[:2] for question in chat.questions for frame in shown(question))
    assert sizes == {(32, 48): 3, (40, 60): 3, (40, 53): 2}
    assert made[0]["cost"] == pytest.approx(4 * (1000 * 2.5 + 100 * 10) / 1e6)
    assert "4 requests, 4000 tokens asked and 400 answered, for 0.014 at the prices given" in errors


def test_a_prompt_is_for_some_rows_only(clips, ask):
    with serve(lambda question: "A room.") as chat:
        code, _, _, rows = ask(chat, "caption", "--prompt", "f3")
    assert code == 0
    assert [row["text"] for row in rows] == ["A room."] * 2
    assert {name: why.rpartition(": ")[2] for name, why in reasons(clips).items()} == {
        "red.png": "the prompt f3 is for videos only",
        "blue.png": "the prompt f3 is for videos only",
    }
    assert len(chat.questions) == 2


def test_known_captions_are_told(clips, ask):
    with serve(lambda question: "Something else.") as chat:
        code, _, _, rows = ask(chat, "caption", "--prompt", "known-text", "--keep-bad")
    assert code == 0
    assert [row["text"] for row in rows] == ["Something else.", None, "Something else.", "Something else."]
    assert list(reasons(clips)) == ["light.mp4"]
    assert any('may be wrong: "something red"' in question.user for question in chat.questions)


def test_words_of_ones_own(clips, ask):
    (clips / "ask.txt").write_text("Who is\n{text}?\n")
    with serve(lambda question: "Nobody.") as chat:
        assert ask(chat, "caption", "--prompt", f"@{clips / 'ask.txt'}")[0] == 0
    asked = {question.user for question in chat.questions}
    assert asked == {"Who is\na dark room?", "Who is\nsomething red?", "Who is\nrien?"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("caption", "--prompt", "lnog"), "did you mean 'long'"),
        (("caption", "--prompt", "@nothing.txt"), "cannot read the prompt"),
        (("caption", "--prompt", "translate"), "the prompt translate is for captions only"),
        (("caption", "-O", "in_flihgt=3"), "did you mean 'in_flight'"),
        (("caption", "--captioner", "openia"), "did you mean 'openai'"),
        (("caption", "--model", "a", "-O", "model=b"), "the model is a and b"),
        (("tag", "--key", "colours"), "say what is to be listed with --prompt"),
        (("tag", "--key", "text"), "cannot be the column"),
        (("tag", "--translate-to", "en", "--key", "objects"), "either tagged or translated"),
        (("tag", "--prompt", "f3"), "the prompt f3 is for videos only"),
    ],
)
def test_wrong_calls(ask, arguments, message):
    with serve(lambda question: "") as chat:
        code, _, errors, rows = ask(chat, *arguments)
    assert (code, rows, chat.questions) == (2, None, [])
    assert message in errors


def test_nobody_to_ask(clips, capsys):
    assert main(["data", "caption", str(clips / "clips.csv"), "-o", str(clips / "out.csv")]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: OPENAI_API_KEY is not set"), "nothing is begun before"
    assert "  export OPENAI_API_KEY=KEY" in errors


# -- what comes back -------------------------------------------------------------------------------------------------


#: Answers that are no captions, and why.
USELESS = (
    (completion(None, refusal="I will not."), "the model refused: I will not."),
    (completion("I'm sorry, but I can't assist with that request."), "the model refused: I'm sorry"),
    (completion(" \n"), "the answer is empty"),
    (completion("..."), "the answer is empty"),
    (completion("It begins with a dog that", finish="length"), "the answer was cut off"),
    (Raw("{not json"), "cannot be read"),
    (Raw("{}"), "is no chat completion"),
    (failure(400, "pictures are too large"), "the service failed (HTTP 400): pictures are too large"),
)


def test_what_is_no_caption_is_a_reason(clips, ask):
    lines = [f"red.png,{number}" for number in range(len(USELESS))]
    (clips / "many.csv").write_text("\n".join(["path,text", *lines, "red.png,good"]) + "\n")

    def answer(question):
        return "A thing." if question.user == "good?" else USELESS[int(question.user[:-1])][0]

    with serve(answer) as chat:
        code, made, errors, rows = ask(chat, "caption", "--prompt", "{text}? ", table="many.csv")
    assert code == 0, errors
    assert [row["text"] for row in rows] == ["A thing."]
    assert made[0]["bad"] == len(USELESS)
    listed = pl.read_csv(clips / "out.bad.csv")["error"].to_list()
    for (_, why), said in zip(USELESS, listed, strict=True):
        assert why in said
    assert len(chat.questions) == len(USELESS) + 1


def test_a_cut_off_answer_keeps_its_whole_sentences(ask):
    with serve(lambda question: completion("A dog runs. It has a red", finish="length")) as chat:
        assert {row["text"] for row in ask(chat, "caption", "--prompt", "f1")[3]} == {"A dog runs."}


def test_fields(clips, ask):
    answer = {name: name for name in ("action", "subject", "surroundings", "camera", "light")}
    texts = {
        "dark": json.dumps({**answer, "style": "old film."}),
        "light": f"```json\n{json.dumps({**answer, 'style': ''})}\n```",
        "red": json.dumps(answer),
        "blue": "Subject: a cat",
    }
    with serve(lambda question: texts[name_of(question)]) as chat:
        code, _, _, rows = ask(chat, "caption", "--prompt", "structured")
    assert code == 0
    common = "subject. action. surroundings. camera. light."
    assert [row["text"] for row in rows] == [f"{common} old film.", common]
    why = reasons(clips)
    assert "the answer lacks 'style'" in why["red.png"]
    assert "the answer is no JSON" in why["blue.png"]
    schema = chat.questions[0].body["response_format"]["json_schema"]["schema"]
    assert schema["required"] == ["subject", "action", "surroundings", "camera", "light", "style"]


def test_changes_of_captions(clips, ask):
    # Many, because chance leaves scores out, by the seed and the path.
    for number in range(40):
        shutil.copy2(clips / "red.png", clips / f"{number}.png")
    (clips / "copies.csv").write_text("path,aes\n" + "".join(f"{number}.png,6\n" for number in range(40)))
    with serve(lambda question: "The video shows a Cat (f/1.8).") as chat:
        changes = ("--strip-opening", "--score-text")
        code, _, _, rows = ask(chat, "caption", "--prompt", "f1", *changes, table="copies.csv")
        assert code == 0
        told = [row["text"].removeprefix("A Cat (f/1.8).") for row in rows]
        assert set(told) == {"", " [aesthetic score: 6.0]"}, told


def test_cleaning(clips, ask):
    with serve(lambda question: "www.example.com" if name_of(question) == "red" else "A Cat (Brown).") as chat:
        code, _, _, rows = ask(chat, "caption", "--prompt", "f1", "--clean")
    assert code == 0
    assert [row["text"] for row in rows] == ["a cat brown ."] * 3
    assert "nothing is left of the answer after cleaning" in reasons(clips)["red.png"]


def test_a_file_that_is_broken_or_gone(clips, ask):
    (clips / "dark.mp4").write_bytes(b"no video")
    (clips / "red.png").unlink()
    with serve(lambda question: "A thing.") as chat:
        code, made, _, rows = ask(chat, "caption", "--prompt", "f1")
    assert (code, len(rows), made[0]["bad"]) == (0, 2, 2)
    assert set(reasons(clips)) == {"dark.mp4", "red.png"}
    assert "the file is missing" in reasons(clips)["red.png"]
    assert len(chat.questions) == 2


# -- services that are busy, slow or gone ----------------------------------------------------------------------------


def many(clips, count):
    """A table with so many captions, and arguments that ask about each."""
    (clips / "many.csv").write_text("path,text\n" + "".join(f"red.png,{n}\n" for n in range(count)))
    return ("tag", "--prompt", "[{text}]", "--key", "number")


def test_failures_that_pass(clips, ask):
    seen: Counter = Counter()
    lock = threading.Lock()

    def answer(question):
        with lock:
            seen[question.user] += 1
            count = seen[question.user]
        if question.user == "[0]" and count < 3:
            return failure(429, "slow down")
        if question.user == "[2]" and count < 2:
            return failure(503)
        return completion(question.user, tokens=(10, 1))

    with serve(answer) as chat:
        code, made, errors, rows = ask(chat, *many(clips, 4), "-O", "retries=2", table="many.csv")
    assert code == 0, errors
    assert [row["number"] for row in rows] == [0, 1, 2, 3]
    assert seen == {"[0]": 3, "[1]": 1, "[2]": 2, "[3]": 1}
    assert (made[0]["requests"], made[0]["prompt_tokens"]) == (7, 40)


def test_a_question_that_is_never_answered(clips, ask):
    options = ("-O", "timeout_seconds=1", "-O", "retries=0")
    with serve(lambda question: None if question.user == "[1]" else question.user) as chat:
        code, _, errors, rows = ask(chat, *many(clips, 3), *options, table="many.csv")
    assert (code, [row["number"] for row in rows]) == (0, [0, 2]), errors
    assert "no answer within 1 s" in reasons(clips)["red.png"]


def test_the_same_command_asks_again_about_rows_that_failed(clips, ask):
    seen: Counter = Counter()
    is_mended = False

    def answer(question):
        seen[question.user] += 1
        return question.user if is_mended or question.user == "[1]" else failure(503)

    options = ("-O", "retries=0", "-O", "in_flight=1")
    with serve(answer) as chat:
        code, _, errors, rows = ask(chat, *many(clips, 3), *options, table="many.csv")
        assert (code, [row["number"] for row in rows]) == (0, [1]), errors
        assert "the same command with --overwrite tries the rows that failed again, and no others" in errors
        is_mended = True
        code, _, errors, rows = ask(chat, *many(clips, 3), *options, "--overwrite", table="many.csv")
        assert (code, [row["number"] for row in rows]) == (0, [0, 1, 2]), errors
    assert seen == {"[0]": 2, "[1]": 1, "[2]": 2}
    assert "1 of 3 rows are done already" in errors
    assert not (clips / "out.csv.work").exists()
    assert not (clips / "out.bad.csv").exists()


@pytest.mark.parametrize(
    ("answer", "requests", "why"),
    [
        (failure(401, f"Incorrect API key provided: {KEY}"), 1, "the key is not accepted (HTTP 401)"),
        (failure(404), 1, "there is no model gpt-4o"),
        (failure(429), 2, "the quota or the rate limit is used up"),
        (Raw("{}", 429, headers=(("Retry-After", "86400"),)), 1, "the quota or the rate limit is used up"),
        (failure(500, "out of order"), 20, "10 questions in a row failed: the service failed (HTTP 500): out of order"),
    ],
)
def test_a_service_that_answers_nobody_stops_the_run(clips, ask, answer, requests, why):
    with serve(lambda question: answer) as chat:
        options = ("-O", "in_flight=1", "-O", "retries=1")
        code, _, errors, rows = ask(chat, *many(clips, 30), *options, table="many.csv")
    assert (code, rows, len(chat.questions)) == (1, None, requests)
    assert why in errors
    assert "the same command goes on" in errors


# -- how many at a time, and going on --------------------------------------------------------------------------------


def test_as_many_questions_at_a_time_as_asked_for(clips, ask):
    """Each question waits until there are four of them, and none may be the fifth."""
    gate = threading.Barrier(4, timeout=60)
    running, most = 0, 0
    lock = threading.Lock()

    def answer(question):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        gate.wait()
        with lock:
            running -= 1
        return question.user

    with serve(answer) as chat:
        code, _, errors, rows = ask(chat, *many(clips, 12), "-O", "in_flight=4", table="many.csv")
    assert code == 0, errors
    assert most == 4
    assert [row["number"] for row in rows] == list(range(12))


def test_an_interrupted_run_asks_nothing_twice(clips, ask):
    """The service has enough of it after five answers; those are kept, and what they cost too."""
    lock = threading.Lock()
    answered: list[str] = []
    is_open = False

    def answer(question):
        with lock:
            if not is_open and len(answered) == 5:
                return failure(401)
            answered.append(question.user)
            return completion(question.user, tokens=(10, 1))

    many(clips, 12)
    arguments = ("caption", "--prompt", "Is it {text}? ")
    with serve(answer) as chat:
        code, _, errors, rows = ask(chat, *arguments, "-O", "in_flight=2", table="many.csv")
        assert (code, rows) == (1, None), errors
        assert "5 requests, 50 tokens asked" in errors
        is_open = True
        code, made, errors, rows = ask(chat, *arguments, "-O", "in_flight=3", "--strip-opening", table="many.csv")
    assert code == 0, errors
    assert "5 of 12 rows are done already" in errors
    assert Counter(answered) == {f"Is it {n}?": 1 for n in range(12)}
    assert [row["text"] for row in rows] == [f"Is it {n}?" for n in range(12)]
    assert (made[0]["requests"], made[0]["prompt_tokens"], made[0]["answer_tokens"]) == (12, 120, 12)


def test_other_words_are_other_work_and_no_secret_is_kept(clips, ask):
    with serve(lambda question: failure(401, f"bad key {KEY}")) as chat:
        assert ask(chat, "tag", "--prompt", "[{text}]")[0] == 1
        code, _, errors, _ = ask(chat, "tag", "--prompt", "[{text}] ?")
    assert code == 2
    assert "unfinished run with other settings (prompts)" in errors
    for path in (clips / "out.csv.work").iterdir():
        assert KEY not in path.read_text()


# -- tags and languages ----------------------------------------------------------------------------------------------


def test_tags(clips, ask):
    answers = {
        "a dark room": {"objects": "Here they are: [room].", "actions": "[]"},
        "something red": {"objects": "<think>[no]</think>[thing, red]", "actions": "There are none."},
        "rien": {"objects": "I'm sorry, I cannot help with that.", "actions": "[x]"},
    }

    def answer(question):
        kind = "objects" if question.user.startswith("List the persons") else "actions"
        return completion(answers[question.user.rpartition("Caption: ")[2]][kind], tokens=(20, 2))

    with serve(answer) as chat:
        code, made, errors, rows = ask(chat, "tag", "--key", "objects", "--key", "actions")
    assert code == 0, errors
    assert [(row["text"], row["objects"], row["actions"]) for row in rows] == [
        ("a dark room", "room", "NONE_FOUND"),
        ("something red", "thing, red", "NONE_FOUND"),
    ]
    assert "it has no caption" in reasons(clips)["light.mp4"]
    assert "objects: the model refused" in reasons(clips)["blue.png"]
    assert not any(question.pictures for question in chat.questions)
    assert (made[0]["requests"], made[0]["prompt_tokens"]) == (6, 120)


def test_equal_captions_are_tagged_once(clips, ask):
    (clips / "many.csv").write_text("path,text\n" + "dark.mp4,a cat\n" * 3 + "light.mp4,a cat\n")
    with serve(lambda question: "[cat]") as chat:
        code, made, _, rows = ask(chat, "tag", "--prompt", "List: {text}", "--key", "beasts", table="many.csv")
    assert (code, [row["beasts"] for row in rows], len(chat.questions)) == (0, ["cat"] * 4, 1)
    assert made[0]["requests"] == 1


def test_translation(clips, ask):
    pytest.importorskip("py3langid", reason="needs the extra data")
    english = "A brown dog runs along the beach while the sun goes down behind the hills."
    french = "Un chien brun court le long de la plage pendant que le soleil se couche."
    (clips / "many.csv").write_text(f"path,text\ndark.mp4,{english}\nlight.mp4,{french}\n")
    with serve(lambda question: '"A brown dog runs."') as chat:
        code, _, errors, rows = ask(chat, "tag", "--translate-to", "en", table="many.csv")
    assert code == 0, errors
    assert [row["text"] for row in rows] == [english, "A brown dog runs."]
    (question,) = chat.questions
    assert french in question.user
    assert '"en"' in question.user
