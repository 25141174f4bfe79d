"""Pictures and videos from the web and from standard input, through the real executable."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import numpy as np
import pytest
from executable import Executable, frames_of
from media import greys, picture, save_video
from web_server import Page, Web, serve_pages

NANO = ("-m", "nano", "--steps", "1", "--size", "96x128", "--frames", "9")


@pytest.fixture
def executable(here: Executable) -> Executable:
    return here


@pytest.fixture
def web() -> Iterator[Web]:
    with serve_pages() as server:
        server.pages["/x.png"] = Page(picture("red"), headers={"ETag": '"1"'})
        yield server


def test_a_picture_from_the_web(executable: Executable, web: Web) -> None:
    url = f"{web.url}/x.png"
    secret = url.replace("http://", "http://ann:secret@")
    run = ("i2v", secret, "clouds", *NANO, "-o", "a.mp4")
    refused = executable(*run, code=2)
    assert "--allow-private-urls" in refused.stderr
    assert "secret" not in refused.stderr
    made = executable(*run, "--allow-private-urls")
    assert "secret" not in made.stderr
    assert f"fetching {url}" in made.stderr
    (executable.folder / "x.png").write_bytes(picture("red"))
    executable("i2v", "x.png", "clouds", *NANO, "-o", "local.mp4")
    assert (frames_of(executable.folder / "a.mp4") == frames_of(executable.folder / "local.mp4")).all()
    shown = executable("show", "a.mp4", "--json").stdout
    assert "secret" not in shown
    assert list(json.loads(shown)["sources"]) == [url]
    again = executable(*run, "--allow-private-urls")
    assert "already there" in again.stderr, "the settings are by content"
    dry = executable(*run, "--allow-private-urls", "--dry-run")
    assert "secret" not in dry.stdout + dry.stderr
    private = executable("generate", "--from", "a.mp4", "clouds", "-o", "b.mp4", code=2)
    assert "--allow-private-urls" in private.stderr, "what a file says opens no private address"
    same = executable("generate", "--from", "a.mp4", "clouds", "-o", "b.mp4", "--allow-private-urls")
    assert "is not what it was" not in same.stderr
    assert (frames_of(executable.folder / "b.mp4") == frames_of(executable.folder / "a.mp4")).all()
    web.pages["/x.png"] = Page(picture("blue"), headers={"ETag": '"2"'})
    changed = executable("generate", "--from", "a.mp4", "clouds", "-o", "c.mp4", "--allow-private-urls")
    assert f"{url} is not what it was when the clip was made" in changed.stderr
    assert (frames_of(executable.folder / "c.mp4") != frames_of(executable.folder / "a.mp4")).any()


def test_references_of_prompts_are_checked_too(executable: Executable, web: Web) -> None:
    (executable.folder / "prompts.txt").write_text(f'clouds{{"reference_path": "{web.url}/x.png"}}\n')
    run = ("generate", "--prompt-file", "prompts.txt", *NANO, "-o", "clips/")
    assert "not on the open internet" in executable(*run, code=2).stderr
    assert not web.requests
    made = executable(*run, "--allow-private-urls", "--json")
    [clip] = json.loads(made.stdout)
    executable("generate", "--from", clip["path"], "clouds", "-o", "b.mp4", "--allow-private-urls")
    assert (frames_of(executable.folder / "b.mp4") == frames_of(executable.folder / clip["path"])).all()


def test_several_processes_fetch_once(executable: Executable, web: Web) -> None:
    executable(
        *("i2v", f"{web.url}/x.png", "clouds", *NANO, "--num-samples", "2", "-o", "clips/"),
        *("--allow-private-urls", "--device", "cpu", "--gpus", "2"),
    )
    assert len(web.requests) == 1


def piped(executable: Executable, data: bytes, *arguments: str, code: int = 0) -> str:
    """Run `sora` with bytes on standard input; returns what it says on stderr."""
    finished = subprocess.run(
        [executable.program, *arguments],
        cwd=executable.folder,
        env=executable.environment,
        input=data,
        capture_output=True,
        check=False,
        timeout=120,
    )
    errors = finished.stderr.decode()
    assert finished.returncode == code, errors
    return errors


def test_standard_input(executable: Executable) -> None:
    piped(executable, picture("red"), "i2v", "-", "clouds", *NANO, "-o", "a.mp4")
    (executable.folder / "x.png").write_bytes(picture("red"))
    executable("i2v", "x.png", "clouds", *NANO, "-o", "local.mp4")
    first = frames_of(executable.folder / "a.mp4")
    assert (first == frames_of(executable.folder / "local.mp4")).all()
    executable("generate", "--from", "a.mp4", "clouds", "-o", "b.mp4")
    assert (first == frames_of(executable.folder / "b.mp4")).all()
    save_video(executable.folder / "grey.mp4", greys(20, (96, 128)))
    video = (executable.folder / "grey.mp4").read_bytes()
    more = ("-m", "nano", "--steps", "1", "--by", "0.5s", "-o", "longer.mp4")
    piped(executable, video, "extend", "-", "clouds", *more)
    assert len(frames_of(executable.folder / "longer.mp4")) == 20 + 12
    short = piped(executable, video, "extend", "-", "clouds", *more[:-1], "other.mp4", "--overlap", "21", code=2)
    assert "standard input has 20 frames, fewer than the overlap of 21" in short
    for arguments in (("i2v", "-", "-"), ("extend", "-", "-"), ("i2v", "-", "clouds", "--last", "-")):
        assert "standard input can be read once" in executable(*arguments, code=2).stderr


def test_a_video_with_sound_and_a_variable_rate(executable: Executable) -> None:
    """Its seconds stay as long as they are."""
    times = [*range(0, 24), *range(24, 60, 3)]
    save_video(executable.folder / "v.mp4", greys(len(times), (96, 128), step=6), times, sound=True)
    made = executable("extend", "v.mp4", "clouds", "-m", "nano", "--steps", "1", "--fps", "24", "--by", "0.5s",
                      "-o", "longer.mp4")  # fmt: skip
    assert "v.mp4 has a variable frame rate; its frames are taken by time, 24 a second" in made.stderr
    assert "v.mp4 has sound; the clip has none" in made.stderr
    found = frames_of(executable.folder / "longer.mp4")
    assert len(found) == pytest.approx(60 + 12, abs=2)
    levels = found[24:57, 4:-4, 4:-4].astype(float).mean(axis=(1, 2, 3))
    assert np.abs(levels.reshape(-1, 3) - levels.reshape(-1, 3)[:, :1]).max() < 3, (
        "each of the later frames three times"
    )


@pytest.mark.parametrize(
    ("page", "message"),
    [
        (Page(status=404), "the server says 404 Not Found"),
        (Page(b"<!doctype html><p>sign in", headers={"Content-Type": "image/png"}), "it is a web page"),
        (Page(picture("red")[:60]), "cannot be decoded"),
        (Page(status=302, headers={"Location": "ftp://host/x.png"}), "which is refused"),
    ],
)
def test_what_cannot_be_fetched(executable: Executable, web: Web, page: Page, message: str) -> None:
    web.pages["/bad.png"] = page
    failed = executable("i2v", f"{web.url}/bad.png", "clouds", *NANO, "-o", "out.mp4", "--allow-private-urls", code=1)
    assert message in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not (executable.folder / "out.mp4").exists()
