"""What the command passes on; what becomes of it is tested with the configuration and the task."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.core import TyperOption
from typer.main import get_command

from sora_cli import options
from sora_cli.commands import generate as command
from sora_cli.config.env import variable_name
from sora_cli.config.schema import GenerateConfig

# Settings without a flag of their own.
WITHOUT_FLAG = {
    "prompt.prompts": "positional",
    "prompt.refined": "settings stored in a clip",
    "output.files": "configuration files, and evaluations",
    "output.sidecar": "configuration files, and evaluations",
    "model.options": "-O",
    "sampling.scheduler_options": "configuration files",
}


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Records what `resolve_generate` and `run` are called with."""
    calls = SimpleNamespace(flags=None, rest={}, dry_run=None)

    def resolve(flags: Any, **rest: Any) -> str:
        calls.flags, calls.rest = flags, rest
        return "resolved"

    def run(resolved: Any, *, dry_run: bool, sources: Any) -> None:
        assert resolved == "resolved"
        calls.dry_run = dry_run

    monkeypatch.setattr("sora_cli.config.resolve.resolve_generate", resolve)
    monkeypatch.setattr("sora_cli.tasks.generate.run", run)
    return calls


def test_only_what_was_given_is_passed_on(sora, passed: SimpleNamespace) -> None:
    assert sora("generate", "a cat", "--steps", "30", "--res", "720p").code == 0
    assert passed.flags == {
        "prompt": {"prompts": ("a cat",)},
        "sampling": {"steps": 30},
        "shape": {"resolution": "720p"},
    }
    assert passed.dry_run is False
    assert passed.rest["config_file"] is None
    assert passed.rest["preset"] is None
    assert passed.rest["from_settings"] is None
    assert list(passed.rest["options"]) == []


GIVEN = [
    (["a", "b"], {"prompt": {"prompts": ("a", "b")}}),
    (["-"], {"prompt": {"file": "-"}}),
    ([""], {"prompt": {"prompts": ("",)}}),
    (["--prompt-file", "p.txt", "--start-index", "0"], {"prompt": {"file": "p.txt", "start_index": 0}}),
    (["--negative-prompt", ""], {"prompt": {"negative": ""}}),
    (["-r", "240p", "-l", "2s"], {"shape": {"resolution": "240p", "duration": "2s"}}),
    (
        ["x", "--refine", "--refine-motion", "--refine-model", "m", "--refine-timeout", "5"],
        {
            "prompt": {
                "prompts": ("x",),
                "refine": True,
                "refine_motion": True,
                "refine_model": "m",
                "refine_timeout": 5.0,
            }
        },
    ),
    (["--fps", "24", "--save-fps", "12.5"], {"shape": {"fps": 24.0, "save_fps": 12.5}}),
    (["--overwrite"], {"output": {"overwrite": True}}),
    (["--no-overwrite"], {"output": {"overwrite": False}}),
    (["--guidance", "0"], {"sampling": {"guidance": 0.0}}),
    (
        ["--aes", "6.5", "--motion", "5", "--camera", "pan left"],
        {"conditioning": {"aes": 6.5, "motion": 5.0, "camera": "pan left"}},
    ),
    (["-m", "fake", "--variant", "wide"], {"model": {"name": "fake", "variant": "wide"}}),
    (["--dtype", "bf16", "--attention", "math"], {"model": {"dtype": "bf16", "attention": "math"}}),
    (
        ["--device", "cpu", "--gpus", "2", "--offload", "block"],
        {"hardware": {"device": "cpu", "gpus": 2, "offload": "block"}},
    ),
]


@pytest.mark.parametrize(("arguments", "flags"), GIVEN, ids=[" ".join(given) for given, _ in GIVEN])
def test_flags(arguments: list[str], flags: dict[str, Any], sora, passed: SimpleNamespace) -> None:
    finished = sora("generate", *arguments)
    assert finished.code == 0, finished.err
    assert passed.flags == flags


def test_a_clip_goes_on_with_its_own_prompt(sora, passed: SimpleNamespace) -> None:
    for name in ("made.mp4", "other.mp4"):
        Path(name).write_bytes(b"x")
    Path("made.mp4.json").write_text('{"settings_hash": "0", "prompt": "a fox"}')
    stored = sora("extend", "made.mp4")
    assert (stored.code, stored.err) == (0, "the prompt that made.mp4 was made from: a fox\n")
    assert passed.flags == {"prompt": {"prompts": ("a fox",)}, "conditioning": {"extend": "made.mp4"}}
    assert sora("extend", "made.mp4", "a cat").err == ""
    assert passed.flags["prompt"] == {"prompts": ("a cat",)}
    for arguments in (("extend", "other.mp4"), ("i2v", "my photo.png")):
        refused = sora(*arguments)
        assert (refused.code, "error: a prompt is needed" in refused.err) == (2, True)
    assert """for example: sora i2v 'my photo.png' "a waterfall\"""" in refused.err
    Path("c.yaml").write_text("prompt: {prompts: [a dog]}")
    assert sora("i2v", "a.png", "--config", "c.yaml").code == 0
    assert passed.flags == {"conditioning": {"first": "a.png"}}, "the file has the prompt"


def test_options_of_the_model_and_where_settings_come_from(sora, passed: SimpleNamespace) -> None:
    assert sora("generate", "x", "-O", "a=1", "-O", "b=2", "--preset", "fast", "--config", "c.yaml", "-n").code == 0
    assert list(passed.rest["options"]) == ["a=1", "b=2"]
    assert passed.rest["preset"] == "fast"
    assert str(passed.rest["config_file"]) == "c.yaml"
    assert passed.dry_run is True


def _options() -> dict[str, TyperOption]:
    parameters = get_command(command.app).params
    return {parameter.name: parameter for parameter in parameters if isinstance(parameter, TyperOption)}


def test_every_setting_has_a_flag_and_every_flag_a_setting() -> None:
    settings = {
        f"{section}.{key}"
        for section, field in GenerateConfig.model_fields.items()
        for key in field.annotation.model_fields
    }
    keys = options.setting_keys()
    generate = {keys[name] for name in _options() if name in keys}
    assert generate == settings - WITHOUT_FLAG.keys()


def test_the_help_names_the_variable_and_the_true_default() -> None:
    defaults = GenerateConfig().model_dump()
    for name, option in _options().items():
        key = options.setting_keys().get(name)
        if key is None:
            continue
        assert option.help is not None
        assert variable_name(key) in option.help
        section, _, field = key.partition(".")
        default = defaults[section][field]
        if default not in (None, ()):
            shown = {True: "yes", False: "no"}.get(default, default) if isinstance(default, bool) else default
            assert f"default: {shown};" in option.help, key


def test_choices_are_those_of_the_configuration() -> None:
    from typing import get_args

    from sora_cli.config import schema

    for name, literal in {
        "dtype": schema.DTypeName,
        "device": schema.DeviceName,
        "offload": schema.OffloadName,
    }.items():
        shown = _options()[name].type_descriptor.choices
        assert tuple(shown) == get_args(literal)
        *first, last = get_args(literal)
        assert f": {', '.join(first)} or {last} " in (_options()[name].help or "")


def test_variables_are_whole_in_a_narrow_terminal(sora, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLUMNS", "TERMINAL_WIDTH"):
        monkeypatch.setenv(name, "80")
    shown = sora("generate", "--help").out
    assert "…" not in shown
    keys = options.setting_keys()
    for key in [keys[name] for name in _options() if name in keys]:
        assert variable_name(key) in shown


def test_panels_are_in_the_order_of_the_design(sora) -> None:
    shown = sora("generate", "--help").out
    panels = ["Prompt", "Shape", "Output", "Sampling", "Conditioning", "Model", "Hardware", "Run"]
    places = [shown.index(f"─ {panel} ─") for panel in panels]
    assert places == sorted(places)


def test_the_fake_model_makes_a_video_whose_settings_can_be_shown_and_used_again(
    fake_plugin, sora, sora_process
) -> None:
    made = sora_process("generate", "a cat", "-m", "fake", "-o", "cat.mp4", "--seed", "3", "--threads", "1")
    assert made.code == 0, made.err
    assert made.out == "cat.mp4\n"
    shown = json.loads(sora("show", "cat.mp4", "--json").out)
    assert shown["prompt"] == "a cat"
    assert shown["seed"] == 3
    again = sora_process("generate", "--from", "cat.mp4", "-o", "again.mp4", "-q", "--threads", "1")
    assert again.code == 0, again.err
    assert again.out == "again.mp4\n"
    assert again.err == ""
    assert json.loads(sora("show", "again.mp4", "--json").out)["settings_hash"] == shown["settings_hash"]


def test_generate_json_is_one_document(fake_plugin, sora_process) -> None:
    made = sora_process("generate", "-", "-m", "fake", "--json", "--threads", "1", stdin="one\ntwo\n")
    assert made.code == 0, made.err
    assert [record["prompt"] for record in json.loads(made.out)] == ["one", "two"]
