from __future__ import annotations

import json

import pytest


def test_presets_are_listed_with_kind_and_summary(fake_plugin, sora) -> None:
    rows = json.loads(sora("presets", "list", "--json").out)
    assert {"models", "generate"} <= {row["kind"] for row in rows}
    assert {"kind": "generate", "name": "fake-long", "summary": "More frames of the fake model"}.items() <= next(
        row for row in rows if row["name"] == "fake-long"
    ).items()
    assert all(row["summary"] for row in rows)


def test_presets_of_one_kind(sora) -> None:
    rows = json.loads(sora("presets", "list", "--kind", "generate", "--json").out)
    assert {row["kind"] for row in rows} == {"generate"}
    names = sora("presets", "list", "--kind", "generate", "-q").out.split()
    assert names == [row["name"] for row in rows]
    assert sora("presets", "list", "--kind", "genrate").code == 2


def test_every_preset_can_be_shown(sora) -> None:
    for row in json.loads(sora("presets", "list", "--json").out):
        finished = sora("presets", "show", row["name"], "--kind", row["kind"], "--json")
        assert finished.code == 0, finished.err
        shown = json.loads(finished.out)
        assert shown["name"] == row["name"]
        assert shown["content"]
        with open(row["path"], encoding="utf-8") as file:
            assert sora("presets", "show", row["name"], "--kind", row["kind"]).out == file.read().rstrip("\n") + "\n"


def test_an_unknown_preset_gets_a_suggestion(sora) -> None:
    finished = sora("presets", "show", "portrat")
    assert finished.code == 2
    assert "did you mean 'portrait'?" in finished.err


def test_show_refuses_a_file_without_settings(sora, tmp_path) -> None:
    (tmp_path / "x.mp4").write_bytes(b"no video")
    finished = sora("show", str(tmp_path / "x.mp4"))
    assert finished.code == 1
    assert "holds no settings" in finished.err


@pytest.fixture
def no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks that import torch answer at once."""
    from sora_cli.plugin.specs import CheckResult

    for name in ("check_torch", "check_gpu"):
        monkeypatch.setattr(f"sora_cli.doctor.{name}", lambda: CheckResult("ok", "not asked"))


def test_doctor_reports_every_check(fake_plugin, no_torch, sora) -> None:
    finished = sora("doctor", "--json")
    rows = {row["check"]: row for row in json.loads(finished.out)}
    assert finished.code == 0
    assert rows["Python"]["status"] == "ok"
    assert rows["installation"]["status"] == "ok"
    assert rows["video codecs"]["status"] == "ok"
    assert rows["fake check"]["text"] == "the fake plugin was asked"
    assert "fakes" in rows["plugins"]["text"]
    assert {row["status"] for row in rows.values()} <= {"ok", "warn"}


def test_doctor_never_prints_a_token(no_torch, sora, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret_secret")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-secret")
    finished = sora("doctor")
    assert "secret" not in finished.out + finished.err
    assert "Hugging Face token  found" in finished.out
    assert "OpenAI key          found" in finished.out


def test_doctor_fails_when_something_is_broken(no_torch, sora, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError("gone")

    monkeypatch.setattr("sora_cli.doctor.check_codecs", fail)
    finished = sora("doctor", "-q")
    assert finished.code == 1
    assert "fail  video codecs" in finished.out
    assert "OSError: gone" in finished.out
    assert "Python" not in finished.out


def test_doctor_warns_about_broken_and_slow_plugins(install_plugin) -> None:
    from sora_cli.doctor import check_plugins
    from sora_cli.plugin.manager import get_plugins

    plugins = get_plugins()
    plugins.load_ms["single"] = 250.0
    slow = check_plugins(plugins)
    assert slow.status == "warn"
    assert "single 250 ms" in slow.text
    install_plugin("bad", "1/0")
    broken = check_plugins(get_plugins())
    assert broken.status == "warn"
    assert "bad: does not import: ZeroDivisionError" in broken.text


def test_doctor_sees_stale_entry_points(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sora_cli import doctor
    from sora_cli.installation import checkout_folder, stale_entry_points

    assert stale_entry_points() == []
    checkout = checkout_folder()
    if checkout is None:
        pytest.skip("runs from a wheel, where nothing can be stale")
    text = (checkout / "pyproject.toml").read_text()
    changed = text.replace(
        "[project.entry-points.sora]\n", '[project.entry-points.sora]\nnewest = "sora_plugins.newest"\n'
    )
    assert changed != text
    (tmp_path / "pyproject.toml").write_text(changed)
    assert stale_entry_points(tmp_path) == ["sora: newest"]
    monkeypatch.setattr(doctor, "stale_entry_points", lambda folder: ["sora: newest"])
    result = doctor.check_installation()
    assert result.status == "warn"
    assert "pip install -e ." in str(result.hint)


def test_a_check_of_a_plugin_that_returns_nonsense_is_a_failed_check(install_plugin, no_torch, sora) -> None:
    source = """
from sora_cli import CheckSpec, hookimpl

@hookimpl
def sora_checks():
    return [CheckSpec(name="odd", summary="odd", target="builtins:dict")]
"""
    install_plugin("odd", source)
    finished = sora("doctor", "--json")
    assert finished.code == 1
    row = next(row for row in json.loads(finished.out) if row["check"] == "odd")
    assert row["text"] == "the check returned dict, not a CheckResult"


def test_doctor_cache_that_cannot_be_written(no_torch, monkeypatch: pytest.MonkeyPatch) -> None:
    from sora_cli import doctor

    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    result = doctor.check_cache()
    assert result.status == "fail"
    assert "HF_HOME" in str(result.hint)
