from __future__ import annotations

import json
from importlib.metadata import EntryPoint

import pytest

from sora_cli.errors import MissingError, SoraError, UsageError
from sora_cli.plugin.kinds import KINDS
from sora_cli.plugin.manager import Plugins, get_plugins, load_attribute

GOOD = """
from sora_cli import SchedulerSpec, hookimpl

@hookimpl
def sora_schedulers():
    return [SchedulerSpec(name="good", summary="works", target="json:dumps", prediction="noise")]
"""

BROKEN = {
    "import": ("import a_package_nobody_has", "does not import: ModuleNotFoundError: No module named"),
    "exit": ("raise SystemExit(3)", "does not import: SystemExit: 3"),
    "syntax": ("def (:", "does not import: SyntaxError"),
    "misspelt": (GOOD.replace("sora_schedulers", "sora_schedulerz"), "unknown hook sora_schedulerz()"),
    "arguments": (
        GOOD.replace("sora_schedulers()", "sora_schedulers(registry)"),
        "sora_schedulers(registry): hooks take no arguments",
    ),
    "raises": (
        GOOD.replace("return [", "raise ValueError('no luck') #"),
        "sora_schedulers() raised ValueError: no luck",
    ),
    "nothing": (GOOD.replace("return [", "x = ["), "sora_schedulers() returned NoneType, not a list"),
    "other": (GOOD.replace("SchedulerSpec(", "dict("), "returned a list with dict, not SchedulerSpec"),
    "spec": (GOOD.replace("prediction=", "predicts="), "sora_schedulers() raised TypeError"),
    "unmarked": (GOOD.replace("@hookimpl", ""), "sora_schedulers() is not marked with @hookimpl"),
    "text": (
        GOOD.replace("prediction=", "needs='torch', prediction="),
        "SchedulerSpec 'good': needs must be a tuple of str, not 'torch'",
    ),
    "choice": (GOOD.replace('"noise"', '"speed"'), "prediction must be 'velocity' or 'noise' or 'sample', not 'speed'"),
    "twice": (GOOD.replace("prediction=", "aliases=('good',), prediction="), "gives the scheduler name 'good' twice"),
    "presets": (
        "from sora_cli import PresetSource, hookimpl\n@hookimpl\ndef sora_presets():\n"
        "    return [PresetSource(name='x', summary='s', package='a_package_nobody_has.inner')]",
        "PresetSource 'x': 'a_package_nobody_has.inner' has no folder 'presets'",
    ),
    "weights": (
        "from sora_cli import UpscalerSpec, Weights, hookimpl\n@hookimpl\ndef sora_upscalers():\n"
        "    return [UpscalerSpec(name='x', summary='s', target='a:b', weights=Weights(package='a', files='x.bin'))]",
        "UpscalerSpec 'x': weights: files must be a tuple of str, not 'x.bin'",
    ),
    "target": (GOOD.replace("target=", "target='no colon' or "), "target must be 'package.module:attribute'"),
    "generator": (GOOD.replace("return [", "yield ["), "returned generator, not a list"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_plugin_is_named_with_its_reason_and_stops_nobody(fault: str, install_plugin, sora) -> None:
    source, reason = BROKEN[fault]
    install_plugin("good", GOOD)
    install_plugin("bad", source)

    listed = sora("plugins", "list", "--json")

    assert listed.code == 0
    rows = json.loads(listed.out)
    assert {"good", "single", "rectified_flow"} <= {row["name"] for row in rows}
    [broken] = [row for row in rows if row["status"] == "broken"]
    assert broken["name"] == "bad"
    assert reason in broken["summary"]
    assert listed.err.count("plugin 'bad' (sora-bad 1.0) is skipped") == 1
    assert reason in listed.err
    assert sora("presets", "list").code == 0


def test_a_misspelt_hook_gets_a_suggestion(install_plugin) -> None:
    install_plugin("bad", BROKEN["misspelt"][0])
    warnings: list[str] = []
    Plugins.load(warn=warnings.append)
    assert warnings == [
        "plugin 'bad' (sora-bad 1.0) is skipped: unknown hook sora_schedulerz(), did you mean 'sora_schedulers'?\n"
        "  update or uninstall it",
    ]


def test_two_plugins_with_one_spec_name_are_an_error_naming_both(install_plugin, sora) -> None:
    install_plugin("one", GOOD)
    install_plugin("two", GOOD)
    with pytest.raises(UsageError, match="plugins 'one' and 'two' both claim the scheduler name 'good'"):
        get_plugins().get("scheduler", "good")
    listed = sora("plugins", "list", "--json")
    assert listed.code == 2
    assert "'one' and 'two'" in listed.err
    # What does not clash is still listed.
    assert "single" in {row["name"] for row in json.loads(listed.out)}


def test_an_alias_clashes_like_a_name(install_plugin) -> None:
    install_plugin("one", GOOD)
    install_plugin("two", GOOD.replace('name="good"', 'name="fine", aliases=("good",)'))
    with pytest.raises(UsageError, match="both claim the scheduler name 'good'"):
        get_plugins().get("scheduler", "good")
    # The other name of the second is its own.
    assert get_plugins().get("scheduler", "fine").aliases == ("good",)


def test_an_entry_point_that_names_a_class_is_told_so() -> None:
    points = [EntryPoint("bad", "pathlib:Path", "sora")]
    plugins = Plugins.load(entry_points=points, warn=lambda text: None)
    assert [each.reason for each in plugins.broken] == [
        "its entry point names the class Path; name a module or an instance"
    ]


def test_debug_shows_where_a_plugin_fails(install_plugin, sora) -> None:
    install_plugin("bad", BROKEN["raises"][0])
    assert "Traceback" not in sora("plugins", "list").err
    assert "--debug shows the traceback" in sora("plugins", "list").err
    shown = sora("--debug", "plugins", "list").err
    assert "Traceback" in shown
    assert "sora_bad_module.py" in shown


def test_two_packages_with_one_plugin_name_are_both_skipped(install_plugin) -> None:
    install_plugin("same", GOOD, package="first-package")
    install_plugin("same", GOOD, package="second-package")
    plugins = Plugins.load(warn=lambda text: None)
    assert [(each.name, each.reason) for each in plugins.broken] == [
        ("same", "first-package and second-package both have a plugin of this name; uninstall one")
    ]
    assert "good" not in plugins.specs("scheduler")


def test_empty_sora_plugins_switches_all_off(sora, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SORA_PLUGINS", "")
    assert json.loads(sora("plugins", "list", "--json").out) == []
    assert sora("plugins", "list").out == "(none)\n"


def test_sora_plugins_keeps_those_named(fake_plugin, sora, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SORA_PLUGINS", "single, fakes")
    rows = json.loads(sora("plugins", "list", "--json").out)
    assert {row["plugin"] for row in rows} == {"single", "fakes"}


def test_a_misspelt_name_in_sora_plugins_is_an_error(sora, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SORA_PLUGINS", "singel")
    finished = sora("plugins", "list")
    assert finished.code == 2
    assert finished.err == (
        "error: SORA_PLUGINS names 'singel', and no such plugin is installed\n  did you mean 'single'?\n"
    )


def test_names_aliases_and_owners(fake_plugin) -> None:
    plugins = get_plugins()
    assert plugins.get("model", "fake-alias").name == "fake"
    assert plugins.owner("model", "fake-alias") == "fakes"
    assert plugins.owner("parallelism", "single") == "single"
    with pytest.raises(UsageError, match="unknown model 'fkae'") as error:
        plugins.get("model", "fkae")
    assert "did you mean 'fake'?" in str(error.value.hint)
    assert "sora plugins list --kind model" in str(error.value.hint)


def test_every_installed_plugin_loads_and_every_kind_can_be_asked(fake_plugin) -> None:
    plugins = get_plugins()
    for kind in KINDS:
        plugins.specs(kind)
    assert plugins.broken == []
    assert set(plugins.load_ms) == set(plugins.points)
    assert all(ms >= 0 for ms in plugins.load_ms.values())


def test_a_missing_package_is_said_before_the_target_is_imported(fake_plugin) -> None:
    plugins = get_plugins()
    with pytest.raises(MissingError, match="fake-parallel needs a_package_nobody_has, which is not installed") as error:
        plugins.load_target(plugins.get("parallelism", "fake-parallel"))
    assert error.value.exit_code == 3
    assert error.value.hint == "pip install 'sora-cli[flash]'"


def test_a_target_that_does_not_exist_blames_the_plugin() -> None:
    with pytest.raises(SoraError, match="thing: json:nothing cannot be imported"):
        load_attribute("json:nothing", what="thing")
    with pytest.raises(SoraError, match="thing: no_such_module:x cannot be imported"):
        load_attribute("no_such_module:x", what="thing")
    assert load_attribute("json:JSONDecoder.decode", what="thing").__name__ == "decode"


def test_entry_points_and_environment_can_be_given() -> None:
    point = EntryPoint("only", "sora_plugins.single", "sora")
    plugins = Plugins.load(environ={}, entry_points=[point])
    assert list(plugins.specs("parallelism")) == ["single"]
    assert plugins.specs("model") == {}
    assert Plugins.load(environ={"SORA_PLUGINS": ""}, entry_points=[point]).points == {}


def test_hooks_are_called_in_the_order_of_plugin_names(install_plugin) -> None:
    install_plugin("zebra", GOOD.replace('"good"', '"a"'))
    install_plugin("ant", GOOD.replace('"good"', '"z"'))
    names = list(get_plugins().specs("scheduler"))
    assert names.index("z") < names.index("a")


def test_slow_plugins_are_timed(install_plugin) -> None:
    install_plugin("slow", "import time\ntime.sleep(0.15)\n" + GOOD)
    assert get_plugins().load_ms["slow"] > 100


def test_a_name_that_is_switched_off_says_what_is_left_on() -> None:
    with pytest.raises(UsageError, match="unknown scheduler 'rectified_flow'") as caught:
        Plugins.load(environ={"SORA_PLUGINS": "nano,single"}).get("scheduler", "rectified_flow")
    assert str(caught.value.hint).endswith("SORA_PLUGINS leaves only nano, single on")
    with pytest.raises(UsageError) as caught:
        Plugins.load(environ={}).get("scheduler", "nope")
    assert "SORA_PLUGINS" not in str(caught.value.hint)


def test_a_clash_of_one_kind_hides_nothing_else(install_plugin, sora) -> None:
    install_plugin("one", GOOD)
    install_plugin("two", GOOD)
    shown = sora("plugins", "show", "one", "--json")
    assert shown.code == 0, shown.err
    assert json.loads(shown.out)[0]["module"] == "sora_one_module"
    assert sora("plugins", "show", "nano").code == 0
    clash = "plugins 'one' and 'two' both claim the scheduler name 'good'"
    assert f"error: {clash}\n" in sora("plugins", "show", "good").err
    assert f"error: {clash}\n" in sora("generate", "x", "-m", "nano", "--scheduler", "good", "--dry-run").err
    assert sora("generate", "x", "-m", "nano", "--dry-run").code == 0


def test_doctor_reports_clashes_and_goes_on(install_plugin, sora, monkeypatch: pytest.MonkeyPatch) -> None:
    from sora_cli.plugin.specs import CheckResult

    for name in ("check_torch", "check_gpu"):
        monkeypatch.setattr(f"sora_cli.doctor.{name}", lambda: CheckResult("ok", "not asked"))
    source = """
from sora_cli import CheckSpec, hookimpl

@hookimpl
def sora_checks():
    return [CheckSpec(name="same", summary="s", target="json:dumps")]
"""
    install_plugin("one", source)
    install_plugin("two", source)
    finished = sora("doctor", "--json")
    assert finished.code == 1
    rows = {row["check"]: row for row in json.loads(finished.out)}
    assert rows["plugins"]["text"] == "plugins 'one' and 'two' both claim the check name 'same'"
    assert "SORA_PLUGINS" in rows["plugins"]["hint"]
    assert rows["disk"]["status"] in ("ok", "warn")
