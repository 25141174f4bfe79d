"""References from files, web addresses and standard input: each once, kept by content, and checked."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from media import greys, picture, save_video
from web_server import Page, Web, serve_pages

from sora_cli.conditioning import sources as module
from sora_cli.conditioning.references import given_to
from sora_cli.conditioning.sources import Sources, check_standard_input, digest
from sora_cli.conditioning.web import Limits
from sora_cli.config.schema import ConditioningSection
from sora_cli.console import get_console
from sora_cli.errors import SoraError, UsageError
from sora_cli.plugin.manager import get_plugins
from sora_cli.redaction import redact, stored
from sora_cli.weights.fetch import cache_folder


@pytest.fixture
def web() -> Iterator[Web]:
    with serve_pages() as server:
        server.pages["/red"] = Page(picture("red"), headers={"ETag": '"red"'})
        yield server


def kept() -> list[str]:
    folder = cache_folder() / module.FOLDER
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def pipe(monkeypatch: pytest.MonkeyPatch, data: bytes, *, is_terminal: bool = False) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data), isatty=lambda: is_terminal))


def test_files_are_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = []
    monkeypatch.setattr(module, "digest", lambda path: hashed.append(path) or digest(path))
    Path("a.png").write_bytes(picture("red"))
    section = ConditioningSection(references=("a.png",), last="a.png")
    vae, sources = get_plugins().get("vae", "nano"), Sources()
    for prompt in range(5):
        given_to(section, {}, prompt=prompt, num_prompts=5, vae=vae, num_frames=17, fps=24.0, sources=sources)
    assert hashed == [Path("a.png")]
    assert sources.said("a.png") == str(Path("a.png").absolute())


def test_other_processes_know_what_one_found(web: Web) -> None:
    url = f"{web.url}/red"
    found = Sources(allow_private=True)
    source = found(url)
    again = Sources(known=found.record())
    assert again(url) == source
    assert len(web.requests) == 1


@pytest.mark.parametrize("scheme", ["ftp", "file", "s3", "gs", "javascript"])
def test_other_schemes_are_refused_by_name(scheme: str) -> None:
    with pytest.raises(UsageError, match=f"cannot be given as {scheme} addresses"):
        Sources()(f"{scheme.upper()}://host/a.png")
    with pytest.raises(UsageError, match="cannot be given as data addresses"):
        Sources()("data:image/png;base64,AAAA")


def test_what_is_fetched_is_kept_by_content(web: Web) -> None:
    url = f"{web.url}/red"
    source = Sources(allow_private=True)(url)
    assert source.path.read_bytes() == picture("red")
    assert source.path.suffix == ".png"
    assert (source.digest, source.said) == (digest(source.path), url)
    files = kept()
    assert len(files) == 2
    assert Sources(allow_private=True)(url) == source, "the server said that it is the same"
    assert web.requests[-1][1]["If-None-Match"] == '"red"'
    assert kept() == files
    source.path.write_bytes(b"damaged")
    assert Sources(allow_private=True)(url).path.read_bytes() == picture("red")
    assert "If-None-Match" not in web.requests[-1][1]
    web.pages["/same"] = Page(picture("red"))
    assert Sources(allow_private=True)(f"{web.url}/same").path == source.path


def test_changed_content_is_said(web: Web, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"{web.url}/red"
    first = Sources(allow_private=True)
    before = first.digests([first(url).path])
    assert list(before) == [url]
    Sources(allow_private=True, expected=before)(url)
    assert "warning" not in capsys.readouterr().err
    web.pages["/red"] = Page(picture("blue"), headers={"ETag": '"blue"'})
    assert Sources(allow_private=True, expected=before)(url).digest != before[url]
    assert f"{url} is not what it was when the clip was made" in capsys.readouterr().err


def test_secrets_are_not_said(web: Web, capsys: pytest.CaptureFixture[str]) -> None:
    web.pages["/red?sig=hidden"] = web.pages["/red"]
    url = f"{web.url}/red?sig=hidden".replace("http://", "http://ann:secret@")
    sources = Sources(allow_private=True)
    source = sources(url)
    assert source.said == f"{web.url}/red?sig=..."
    section = ConditioningSection(first=url, keyframes=(f"{url}@1.5s",), edit="http://ann:secret@host/unread")
    assert sources.conditioning_as_said(section) == {
        "first": source.said,
        "keyframes": (f"{source.said}@1.5s",),
        "edit": "http://host/unread",
    }
    everything = str(sources.digests([source.path])) + capsys.readouterr().err
    everything += "".join(path.read_text() for path in (cache_folder() / module.FOLDER).glob("*.json"))
    assert "secret" not in everything
    assert "hidden" not in everything


def test_redaction() -> None:
    for text, shown in (
        ("a plain text", "a plain text"),
        ("https://h/a.png", "https://h/a.png"),
        ("https://u:p@h/a@1s;HTTP://u@h/b", "https://h/a@1s;HTTP://h/b"),
        ("https://h/a?X-Amz-Signature=1&size=2&Token=3", "https://h/a?X-Amz-Signature=...&size=2&Token=..."),
        ("http://h/\x1b[31m", "http://h/?[31m"),
        ("s3://ann:p@ss@h/b, redis://:pw@h", "s3://h/b, redis://h"),
        ("write to ann@example.org", "write to ann@example.org"),
    ):
        assert redact(text) == shown
    error = UsageError("http://u:p@h/", hint="see http://u:p@h/x")
    assert (error.message, str(error), error.hint) == ("http://h/", "http://h/", "see http://h/x")


def test_secrets_of_the_environment(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """By the names of variables, wherever their values turn up; short placeholders are no secrets."""
    for name, value in {
        "OPENAI_API_KEY": "sk-1234567890",
        "HF_TOKEN": "hf_abcdefgh",
        "DB_PASSWORD": " correct horse ",
        "OTHER_KEY": "none",
        "KEYBOARD": "qwertyuiop",
    }.items():
        monkeypatch.setenv(name, value)
    text = "sk-1234567890/hf_abcdefgh/correct horse/none/qwertyuiop"
    assert redact(text) == ".../.../.../none/qwertyuiop"
    assert UsageError(text, hint=text).hint == redact(text)
    get_console().note(text)
    assert capsys.readouterr().err == f"{redact(text)}\n"
    nested = {"a": {"b": [text, 1, None]}, "prompt": "\U0001f468\u200d\U0001f469 http://ann:pw@h"}
    assert stored(nested) == {
        "a": {"b": [redact(text), 1, None]},
        "prompt": "\U0001f468\u200d\U0001f469 http://h",
    }


def test_what_is_given_has_a_name(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """In messages: not the place where it is kept."""
    sources, url = Sources(allow_private=True), f"{web.url}/red"
    Path("a.png").write_bytes(picture("blue"))
    assert sources.name(sources("a.png").path) == "a.png"
    assert sources.name(sources(url.replace("http://", "http://ann:secret@")).path) == url
    pipe(monkeypatch, picture("green"))
    assert sources.name(sources("-").path) == "standard input"


def test_private_addresses_are_refused(web: Web) -> None:
    with pytest.raises(UsageError, match="not on the open internet"):
        Sources()(f"{web.url}/red")
    assert not web.requests


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html><body>not a picture</body></html>", "/bad: it is a web page"),
        (picture("red")[:50], "/bad: it cannot be decoded"),
        (b"", "/bad: it is empty"),
        (b"#EXTM3U\n#EXTINF:1,\nhttp://10.0.0.1/a.ts\n", "/bad: it is neither a picture nor a video"),
    ],
)
def test_bad_content_is_not_kept(web: Web, body: bytes, message: str) -> None:
    web.pages["/bad"] = Page(body, headers={"Content-Type": "image/png"})
    with pytest.raises(SoraError, match=message):
        Sources(allow_private=True)(f"{web.url}/bad")
    assert kept() == []


def test_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A picture or a video; what it is kept as stands for it in settings."""
    pipe(monkeypatch, picture("red"))
    sources = Sources()
    source = sources("-")
    assert source.path.read_bytes() == picture("red")
    assert sources("-") is source
    assert source.said == str(source.path)
    assert f"standard input is kept as {source.path}" in capsys.readouterr().err
    assert Sources()(source.said).digest == source.digest
    save_video(Path("a.mp4"), greys(2))
    pipe(monkeypatch, Path("a.mp4").read_bytes())
    assert Sources()("-").path.suffix == ".mp4"


def test_what_standard_input_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe(monkeypatch, b"", is_terminal=True)
    with pytest.raises(UsageError, match="that is a terminal"):
        Sources()("-")
    pipe(monkeypatch, b"")
    with pytest.raises(SoraError, match="standard input: it is empty"):
        Sources()("-")
    pipe(monkeypatch, bytes(3 << 20))
    with pytest.raises(SoraError, match="larger than 2 MiB"):
        Sources(limits=Limits(num_bytes=2 << 20))("-")
    assert kept() == []


@pytest.mark.parametrize(
    ("conditioning", "prompt_file", "of_prompts", "message"),
    [
        ({"first": "-", "last": "-"}, None, (), "two references"),
        ({"first": "-", "keyframes": ("-@1s",)}, None, (), "two references"),
        ({"references": ("a.png;-", "-")}, None, (), "two references"),
        ({"edit": "-"}, None, ("-",), "two references"),
        ({"first": "-"}, "-", (), "the prompts and a reference"),
        ({}, "-", ("b.png;-",), "the prompts and a reference"),
        ({"references": ("-",)}, "prompts.txt", ("", "b.png"), None),
    ],
)
def test_standard_input_is_read_once(conditioning, prompt_file, of_prompts, message: str | None) -> None:
    section = ConditioningSection(**conditioning)
    if message is None:
        check_standard_input(section, prompt_file, of_prompts)
        return
    with pytest.raises(UsageError, match=message):
        check_standard_input(section, prompt_file, of_prompts)
