"""Every preset loads and is valid; wrong ones are refused with file and line; the right launch entry is chosen."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from sora_cli.config.files import read_yaml
from sora_cli.config.schema import GenerateConfig
from sora_cli.config.train_schema import TrainConfig
from sora_cli.config.vae_schema import VaeTrainConfig
from sora_cli.errors import SoraError, UsageError
from sora_cli.plugin.specs import PresetSource
from sora_cli.presets import (
    LAUNCH_KEYS,
    SECTIONS,
    choose_launch,
    find_preset,
    launch_entries,
    list_presets,
    load_preset,
    presets_folder,
)
from sora_cli.video import shapes

OURS = list_presets()
MODELS = [info.name for info in OURS if info.kind == "models"]
LAUNCHED = [info.name for info in OURS if info.kind == "launch"]


class Plugins:
    """The part of the plugin manager that presets use."""

    def __init__(self, models=(), presets=()):
        self.models, self.presets = models, presets

    def specs(self, kind):
        if kind == "model":
            return {name: SimpleNamespace(name=name) for name in self.models}
        return {spec.name: spec for spec in self.presets} if kind == "presets" else {}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Makes a package with preset files and returns the plugins that name it."""

    def make(files):
        folder = tmp_path / "preset_package"
        for name, text in files.items():
            (folder / "presets" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "presets" / name).write_text(text)
        (folder / "__init__.py").touch()
        monkeypatch.syspath_prepend(str(tmp_path))
        return Plugins(presets=[PresetSource(name="extra", summary="s", package="preset_package")])

    return make


@pytest.mark.parametrize("info", OURS, ids=lambda info: f"{info.kind}-{info.name}")
def test_every_preset_loads_and_has_a_summary(info):
    assert load_preset(info.kind, info.name)
    assert 10 <= len(info.summary) <= 100


def test_what_there_is():
    names = {
        kind: [info.name for info in OURS if info.kind == kind] for kind in ("generate", "models", "launch", "tables")
    }
    assert names["tables"] == ["durations", "loss-buckets", "resolutions"]
    assert {"nano", "opensora-v1.2"} <= set(names["models"])
    assert {"nano", "opensora-v1.2"} <= set(names["launch"]) <= set(names["models"])
    assert {"fast", "best", "portrait", "square", "image"} <= set(names["generate"])


@pytest.mark.parametrize("name", MODELS)
def test_model_presets_name_tables_that_exist(name):
    shape = load_preset("models", name)["shape"]
    if "size" in shape:
        assert shapes.parse_size(shape["size"])
    else:
        shapes.table_size(shape["resolution"], shapes.flip_aspect(shape["aspect_ratio"]))
    assert shape.get("frames") or shape["duration"] in shapes.durations()


def test_presets_without_an_installed_model_are_flagged():
    infos = {(info.kind, info.name): info for info in list_presets(Plugins(models=["nano"]))}
    assert infos["models", "nano"].problem is None
    assert infos["generate", "fast"].problem is None
    for kind in ("models", "launch"):
        assert infos[kind, "opensora-v1.2"].problem == "no installed plugin provides the model 'opensora-v1.2'"


def test_the_readme_lists_every_key():
    text = (presets_folder() / "README.md").read_text()
    keys = {f"{section}.{name}" for section in SECTIONS["generate"] for name in fields_of(section)}
    keys |= {f"{part}.{key}" for part, keys_of_part in LAUNCH_KEYS.items() for key in keys_of_part} | set(
        LAUNCH_KEYS
    ) - {"expect"}
    listed = set(re.findall(r"`([a-z_]+(?:\.[a-z_]+)?)`", text))
    assert keys - listed == set()


@pytest.mark.parametrize("config", [TrainConfig, VaeTrainConfig])
def test_the_readme_lists_every_key_of_training(config):
    text = (presets_folder() / "README.md").read_text()
    keys = {
        f"{section}.{name}"
        for section, field in config.model_fields.items()
        for name in field.annotation.model_fields
        if name != "tables"
    }
    assert keys - set(re.findall(r"`([a-z_]+\.[a-z_]+)`", text)) == set()


def fields_of(section):
    return GenerateConfig.model_fields[section].annotation.model_fields


# -- names ---------------------------------------------------------------------------------------------------------


def test_unknown_and_ambiguous_names():
    with pytest.raises(UsageError, match="unknown preset 'fats'") as caught:
        find_preset(None, "fats")
    assert "did you mean 'fast'?" in caught.value.hint
    with pytest.raises(UsageError, match="unknown kind of preset 'model'") as caught:
        find_preset("model", "nano")
    assert "did you mean 'models'?" in caught.value.hint
    with pytest.raises(UsageError, match="several presets are called 'nano': train, models, launch"):
        find_preset(None, "nano")
    assert find_preset("launch", "nano").kind == "launch"


def test_a_plugin_adds_presets(package):
    plugins = package({"generate/moody.yaml": "# Dark and slow\nconditioning: {motion: 2}\n"})
    info = find_preset("generate", "moody", plugins)
    assert (info.source, info.summary) == ("preset_package", "Dark and slow")
    assert load_preset("generate", "moody", plugins) == {"conditioning": {"motion": 2}}


def test_two_presets_of_one_name(package):
    plugins = package({"generate/fast.yaml": "", "generate/moody.yaml": ""})
    with pytest.raises(SoraError, match="two generate presets are called 'fast': one of sora, one of preset_package"):
        load_preset("generate", "fast", plugins)
    problems = {info.name: info.problem for info in list_presets(plugins) if info.kind == "generate"}
    assert problems["fast"] == "preset_package has a preset of this name too"
    assert problems["moody"] is None
    assert load_preset("generate", "moody", plugins) == {}


def test_a_recipe_that_is_no_yaml_is_a_problem_of_its_own(package):
    plugins = package({"train/broken.yaml": "model: {name: [}", "generate/moody.yaml": ""})
    [info] = [info for info in list_presets(plugins) if info.name == "broken"]
    assert "broken.yaml" in str(info.problem)
    assert load_preset("generate", "moody", plugins) == {}


# -- validation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("generate/x.yaml", "sampling:\n  stpes: 3\n", "x.yaml:2: unknown setting 'sampling.stpes'"),
        ("generate/x.yaml", "prompt: {prompts: [a]}\n", "x.yaml:1: unknown setting 'prompt'"),
        ("generate/x.yaml", "sampling: {steps: none}\n", "x.yaml:1: sampling.steps 'none'"),
        ("generate/x.yaml", "shape: {resolution: 721p}\n", "x.yaml:1: unknown resolution '721p'"),
        ("generate/x.yaml", "sampling: [\n", "x.yaml:2: not valid YAML"),
        ("models/x.yaml", "model: {name: nano}\n", "x.yaml:1: unknown setting 'model.name'"),
        ("models/x.yaml", "hardware: {gpus: 2}\n", "x.yaml:1: unknown setting 'hardware'"),
        ("launch/x.yaml", "when: {}\n", "a launch preset is a list of entries"),
        ("launch/x.yaml", "- run: {}\n", "x.yaml: an entry needs `when` and `run`"),
        ("launch/x.yaml", "- when: {gpu: 1}\n  run: {}\n", "x.yaml:1: unknown key 'gpu' in 'when'"),
        ("launch/x.yaml", "- when: {}\n  run: {}\n  expects: {}\n", "x.yaml:3: unknown key 'expects'"),
        ("launch/x.yaml", "- when: {gpus: two}\n  run: {}\n", "x.yaml:1: gpus: 'two' has the wrong type"),
        ("launch/x.yaml", "- when: {}\n  run: {}\n  env: {A: 1}\n", "x.yaml:3: A: 1 has the wrong type"),
        ("launch/x.yaml", "- when: {}\n  run: 3\n", "x.yaml:2: 'run' must hold"),
        ("launch/x.yaml", "- when: {resolution: 7p}\n  run: {}\n", "unknown resolution '7p'"),
        ("launch/x.yaml", "- when: {duration: 7s}\n  run: {}\n", "unknown length '7s'"),
        ("launch/x.yaml", "- when: {gpus: 2}\n  run: {processes: 4}\n", "x.yaml:2: processes must equal when.gpus (2)"),
        ("launch/x.yaml", "- when: {gpus: 2}\n  run: {sequence: 3}\n", "2 GPUs cannot be split into groups of 3"),
        ("launch/x.yaml", "- {when: {}, run: {}, expect: {memory_gib: 3}}\n", "source must be"),
        ("launch/x.yaml", "- {when: {}, run: {}, expect: {source: measured}}\n", "needs `machine` and `date`"),
        (
            "launch/x.yaml",
            "- {when: {gpus: 1}, run: {}}\n- {when: {gpus: 1, duration: 2s}, run: {}}\n",
            "x.yaml:2: this",
        ),
    ],
)
def test_wrong_presets_name_file_and_line(package, file, text, message):
    plugins = package({file: text})
    kind, _, name = file.partition("/")
    with pytest.raises(UsageError) as caught:
        load_preset(kind, name.removesuffix(".yaml"), plugins)
    assert message in caught.value.message
    assert "x.yaml" in caught.value.message


def test_all_problems_of_a_launch_preset_together(package):
    plugins = package({"launch/x.yaml": "- when: {gpu: 1}\n  run: {process: 1}\n- run: {}\n"})
    with pytest.raises(UsageError, match="3 problems"):
        load_preset("launch", "x", plugins)


# -- launch --------------------------------------------------------------------------------------------------------


def entries(tmp_path, text):
    path = tmp_path / "launch.yaml"
    path.write_text(text)
    return launch_entries(read_yaml(path))


def test_the_first_entry_that_fits(tmp_path):
    found = entries(
        tmp_path,
        """
- {when: {resolution: 720p, duration: 4s, gpus: 1, min_memory_gib: 80}, run: {offload: none}}
- {when: {resolution: 720p, duration: 4s, gpus: 1, min_memory_gib: 40}, run: {offload: model}}
- {when: {resolution: 720p, gpus: 2}, run: {processes: 2}}
- {when: {gpus: 1}, run: {offload: block}}
""",
    )
    cases = [
        (("720p", "4s", 1, 80), 1),
        (("720p", "4s", 1, 79.6), 2),
        (("720p", "4s", 1, 24), 4),
        (("720p", None, 2, 0), 3),
        ((None, None, 1, 0), 4),
        (("360p", "4s", 2, 80), None),
    ]
    for (resolution, duration, gpus, memory_gib), number in cases:
        facts = {"resolution": resolution, "duration": duration, "gpus": gpus, "memory_gib": memory_gib}
        entry = choose_launch(found, **facts)
        assert (entry.number if entry else None) == number, facts


@pytest.mark.parametrize("model", LAUNCHED)
@pytest.mark.parametrize("gpus", [1, 2, 4, 8])
def test_every_size_and_length_has_an_entry(model, gpus):
    found = load_preset("launch", model)
    for resolution in [*shapes.resolutions(), None]:
        for duration in [*shapes.durations(), None]:
            for memory_gib in (0, 16, 24, 48, 80, 141):
                facts = {"resolution": resolution, "duration": duration, "gpus": gpus, "memory_gib": memory_gib}
                entry = choose_launch(found, **facts)
                assert entry is not None, facts
                assert gpus % entry.run["sequence"] == 0
                assert entry.expect.get("memory_gib", 0) <= memory_gib or "min_memory_gib" not in entry.when


@pytest.mark.parametrize("model", LAUNCHED)
def test_a_larger_picture_never_needs_less_memory(model):
    needed = {}
    for entry in load_preset("launch", model):
        if "memory_gib" in entry.expect and "resolution" in entry.when:
            ways = (entry.when.get("duration"), entry.when["gpus"], entry.run["sequence"], entry.run["offload"])
            pixels = shapes.resolutions()[entry.when["resolution"]].pixels
            needed.setdefault(ways, []).append((pixels, entry.expect["memory_gib"]))
    assert needed
    for ways, found in needed.items():
        memory = [gib for _, gib in sorted(found)]
        assert memory == sorted(memory), ways


def test_every_length_in_the_launch_table_of_nano_can_be_made():
    from sora_cli.plugin.manager import get_plugins

    longest = get_plugins().get("model", "nano").constraints.max_frames
    named = {entry.when["duration"] for entry in load_preset("launch", "nano") if "duration" in entry.when}
    assert max(shapes.durations()[name] for name in named) == longest


def test_gpus_share_clips_of_the_large_model():
    """On a small card nothing is said about offloading: the memory plan decides."""
    found = load_preset("launch", "opensora-v1.2")
    small = choose_launch(found, resolution="720p", duration="4s", gpus=1, memory_gib=12)
    assert "offload" not in small.run
    shared = {("480p", 2): 2, ("480p", 8): 2, ("720p", 2): 2, ("720p", 4): 4, ("720p", 8): 4, ("240p", 4): 1}
    for (resolution, gpus), sequence in shared.items():
        entry = choose_launch(found, resolution=resolution, duration="4s", gpus=gpus, memory_gib=80)
        assert (entry.run["processes"], entry.run["sequence"]) == (gpus, sequence)
