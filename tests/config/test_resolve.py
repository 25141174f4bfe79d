"""Precedence, origins, and what is refused."""

from __future__ import annotations

import dataclasses
import json

import pytest

from sora_cli.config.resolve import resolve_generate, resolved_table, settings_of
from sora_cli.errors import MissingError, SoraError, UsageError
from sora_cli.plugin.specs import TextEncoderSpec, Weights
from sora_cli.weights import locate


@pytest.fixture
def resolve(plugins, tmp_path):
    """`resolve_generate` with the tiny plugins, an empty home and an empty folder."""

    def run(flags=None, *, env=None, project=None, user=None, config=None, **more):
        cwd = tmp_path / "work"
        cwd.mkdir(exist_ok=True)
        environ = {"HOME": str(tmp_path / "home"), **(env or {})}
        if project is not None:
            (cwd / "sora.yaml").write_text(project)
        if user is not None:
            place = tmp_path / "home" / ".config" / "sora"
            place.mkdir(parents=True, exist_ok=True)
            (place / "config.yaml").write_text(user)
        if config is not None:
            (tmp_path / "c.yaml").write_text(config)
            more["config_file"] = tmp_path / "c.yaml"
        return resolve_generate(flags or {}, plugins=plugins, environ=environ, cwd=cwd, **more)

    return run


def test_every_level_of_precedence(resolve, with_presets, tmp_path):
    """Take the strongest level away, one at a time, and see the next one win."""
    with_presets({"models/tiny.yaml": "sampling: {steps: 8}\n", "generate/mine.yaml": "sampling: {steps: 7}\n"})
    levels = [
        ("flag", {"flags": {"sampling": {"steps": 1}}}),
        ("environment SORA_SAMPLING__STEPS", {"env": {"SORA_SAMPLING__STEPS": "2"}}),
        (f"--config {tmp_path / 'c.yaml'}", {"config": "sampling: {steps: 3}"}),
        ("--from", {"from_settings": {"sampling": {"steps": 4}}}),
        ("file sora.yaml", {"project": "sampling: {steps: 5}"}),
        (f"user file {tmp_path / 'home' / '.config' / 'sora' / 'config.yaml'}", {"user": "sampling: {steps: 6}"}),
        ("preset mine", {"preset": "mine"}),
        ("model preset tiny", {}),
    ]
    # Files stay on disk between calls, so go from the weakest level up.
    given = {}
    for steps, (origin, argument) in reversed(list(enumerate(levels, start=1))):
        given |= argument
        resolved = resolve(**given)
        assert (resolved.config.sampling.steps, resolved.origins["sampling.steps"]) == (steps, origin)


def test_a_given_video_brings_its_size_and_rate(resolve, with_presets):
    with_presets({"models/tiny.yaml": "shape: {resolution: 240p, fps: 8, save_fps: 4}\n"})
    asked = []

    def video_shape(path):
        asked.append(path)
        return None if path.endswith(".png") else ("64x96", 30.0)

    def shape_of(conditioning, *, shape=None, **more):
        return resolve({"conditioning": conditioning, "shape": shape or {}}, video_shape=video_shape, **more)

    for conditioning in ({"extend": "a.mp4"}, {"connect": ("a.png", "a.mp4")}):
        found = shape_of(conditioning)
        kept = found.config.shape
        assert (kept.size, kept.resolution, kept.fps, kept.save_fps) == ("64x96", None, 30.0, None)
        assert found.origins["shape.fps"] == "the video a.mp4"
    edited = shape_of({"edit": "a.mp4"}).config.shape
    assert (edited.size, edited.resolution, edited.fps) == (None, "240p", 30.0)
    asked.clear()
    stronger = shape_of({"extend": "a.mp4"}, shape={"resolution": "144p", "fps": 12}).config.shape
    assert (stronger.size, stronger.resolution, stronger.fps) == (None, "144p", 12)
    weaker = shape_of({"extend": "a.mp4"}, project="shape: {fps: 6, resolution: 144p}").config.shape
    assert (weaker.size, weaker.resolution, weaker.fps) == ("64x96", None, 30.0)
    assert shape_of({"connect": ("a.png", "b.png")}).config.shape.resolution == "144p", "from sora.yaml"
    stored = {"conditioning": {"extend": "a.mp4"}, "shape": {"size": "128x128", "fps": 20}}
    again = resolve({}, from_settings=stored, video_shape=video_shape).config.shape
    assert (again.size, again.fps) == ("128x128", 20.0), "as the clip was made"


def test_defaults_of_specs_and_built_in(resolve):
    resolved = resolve()
    assert resolved.config.model.name == "tiny"
    assert resolved.config.model.variant == "base"
    assert resolved.config.model.vae == "blocks"
    assert resolved.config.sampling.scheduler == "flow"
    assert resolved.config.sampling.scheduler_options == {"shift": 1.0}
    assert resolved.config.model.options == {"reference_rounding": False, "window": 4}
    expected = {
        "model.name": "auto",
        "model.vae": "model tiny",
        "sampling.steps": "scheduler flow",
        "sampling.guidance": "default",
        "shape.resolution": "default",
        "sampling.seed": "default",
        "model.options.window": "default",
    }
    assert {key: resolved.origins[key] for key in expected} == expected
    assert resolved.notes == ()


def test_the_table_has_every_setting_and_is_json(resolve):
    resolved = resolve({"output": {"path": "x.mp4"}}, options=["window=2"])
    table = resolved_table(resolved)
    assert json.loads(json.dumps(table)) == table
    rows = {row["key"]: row for row in table}
    assert rows["output.path"] == {"key": "output.path", "value": "x.mp4", "origin": "flag"}
    assert rows["model.options.window"] == {"key": "model.options.window", "value": 2, "origin": "flag"}
    assert rows["conditioning.aes"] == {"key": "conditioning.aes", "value": None, "origin": "default"}
    assert set(rows) == set(resolved.origins)


def test_names_are_canonical(resolve):
    resolved = resolve({"model": {"name": "small"}, "sampling": {"scheduler": "f"}})
    assert (resolved.config.model.name, resolved.config.sampling.scheduler) == ("tiny", "flow")
    assert resolved.origins["model.name"] == "flag"


def test_auto_takes_the_best_that_fits(resolve, gpus):
    assert resolve().config.model.name == "tiny"
    gpus(1, 80.0)
    assert resolve().config.model.name == "giant"
    assert resolve({"hardware": {"device": "cpu"}}).config.model.name == "tiny"
    assert resolve({"model": {"name": "auto"}}).origins["model.name"] == "flag (auto)"
    gpus(1, 24.0)
    assert resolve().config.model.name == "tiny"


@pytest.fixture
def on_this_machine(monkeypatch):
    """Says which weights are here; the list is read at each call. The network is not there."""
    repos: list[str] = []
    monkeypatch.setattr(locate, "weights_present", lambda weights: weights.repo in repos, raising=False)
    monkeypatch.setattr(locate, "is_offered", lambda repo, revision: False)
    return repos


def with_weights(plugins, model, *, part="model"):
    """Let a model, or its autoencoder, need weights from a repository of its name."""
    spec = plugins.get(part, model)
    weights = Weights(repo=f"hub/{model}", files=("x",), size_gib=24.0)
    plugins.add(part, dataclasses.replace(spec, weights={"base": weights} if part == "model" else weights))


def test_auto_without_network_says_what_would_be_better(resolve, plugins, gpus, on_this_machine):
    with_weights(plugins, "giant")
    note = (
        "giant would fit this machine, but its weights are not on it and cannot be downloaded now: "
        "`sora pull giant` fetches them when there is network and room on the disk"
    )
    assert resolve().notes == (), "without a GPU it would not fit"
    gpus(1, 80.0)
    resolved = resolve()
    assert (resolved.config.model.name, resolved.notes) == ("tiny", (note,))
    named = resolve({"model": {"name": "giant"}})
    assert (named.config.model.name, named.notes) == ("giant", ())
    on_this_machine.append("hub/giant")
    resolved = resolve()
    assert (resolved.config.model.name, resolved.notes) == ("giant", ())


def test_auto_takes_what_can_be_downloaded(resolve, plugins, gpus, on_this_machine, monkeypatch):
    with_weights(plugins, "giant")
    asked = []
    monkeypatch.setattr(locate, "is_offered", lambda repo, revision: asked.append((repo, revision)) or True)
    monkeypatch.setattr(locate, "free_gib", lambda: 25.0)
    assert resolve().config.model.name == "tiny"
    assert asked == [], "it would not fit"
    gpus(1, 80.0)
    resolved = resolve()
    assert resolved.config.model.name == "giant"
    assert asked == [("hub/giant", "main")]
    assert "giant is the best model" in resolved.notes[0]
    assert "about 24 GiB" in resolved.notes[0]
    monkeypatch.setattr(locate, "free_gib", lambda: 23.0)
    assert resolve().config.model.name == "tiny", "no room on the disk"
    monkeypatch.setattr(locate, "free_gib", lambda: 25.0)
    plugins.add("model", dataclasses.replace(plugins.get("model", "giant"), rank=0))
    with_weights(plugins, "giant")
    assert resolve().config.model.name != "giant", "only what is ranked above others is worth a download"


def test_auto_wants_the_weights_of_all_parts(resolve, plugins, gpus, on_this_machine):
    plugins.add("model", dataclasses.replace(plugins.get("model", "giant"), vae="frames"))
    with_weights(plugins, "frames", part="vae")
    gpus(1, 80.0)
    assert resolve().config.model.name == "tiny"
    on_this_machine.append("hub/frames")
    assert resolve().config.model.name == "giant"


def test_auto_passes_over_a_model_without_its_parts(resolve, plugins, gpus):
    plugins.add("model", dataclasses.replace(plugins.get("model", "giant"), vae="of another plugin"))
    gpus(1, 80.0)
    assert resolve().config.model.name == "tiny"


def test_auto_with_no_weights_at_all(resolve, plugins, on_this_machine):
    with_weights(plugins, "tiny")
    with pytest.raises(MissingError, match="no model that fits this machine has its weights on it, nor") as caught:
        resolve()
    assert "`sora pull tiny`" in caught.value.hint
    assert caught.value.exit_code == 3


def test_no_model_fits(resolve, plugins):
    plugins.by_kind["model"] = {}
    with pytest.raises(MissingError, match="no installed model"):
        resolve()


# -- values --------------------------------------------------------------------------------------------------------


def test_numbers_that_are_names(resolve):
    resolved = resolve(project="shape: {resolution: 512, aspect_ratio: 1:1}")
    assert (resolved.config.shape.resolution, resolved.config.shape.aspect_ratio) == ("512", "1:1")


def test_text_in_the_environment_is_taken_as_it_is(resolve):
    env = {
        "SORA_PROMPT__PROMPTS": "a cat: the film",
        "SORA_CONDITIONING__CAMERA": "pan left",
        "SORA_SAMPLING__SEED": "",
    }
    resolved = resolve(env=env)
    assert resolved.config.prompt.prompts == ("a cat: the film",)
    assert resolved.config.conditioning.camera == "pan left"
    assert resolved.origins["sampling.seed"] == "default"
    assert resolve(env={"SORA_PROMPT__PROMPTS": "[a, b]"}).config.prompt.prompts == ("a", "b")


def test_options_from_everywhere(resolve):
    resolved = resolve(
        options=["reference_rounding=true", "scheduler.shift=3"],
        env={"SORA_MODEL__OPTIONS__WINDOW": "2", "SORA_SAMPLING__SCHEDULER_OPTIONS": "{shift: 9}"},
    )
    assert resolved.config.model.options == {"reference_rounding": True, "window": 2}
    assert resolved.config.sampling.scheduler_options == {"shift": 3.0}
    assert resolved.origins["model.options.window"] == "environment SORA_MODEL__OPTIONS__WINDOW"


def test_null_hides_a_weaker_value(resolve):
    user = "conditioning: {aes: 6.5, motion: 3}\nsampling: {steps: 5}\n"
    resolved = resolve(user=user, project="conditioning: {aes: null}\nsampling: {steps: null}\n")
    assert (resolved.config.conditioning.aes, resolved.config.conditioning.motion) == (None, 3)
    assert resolved.origins["conditioning.aes"] == "file sora.yaml"
    # A run needs steps: there null is "not set here".
    assert resolved.config.sampling.steps == 5


def test_options_for_another_model_or_scheduler_are_not_used(resolve):
    project = "model: {name: tiny, options: {window: 2}}\nsampling: {scheduler: flow, scheduler_options: {shift: 2}}\n"
    resolved = resolve({"model": {"name": "giant"}, "sampling": {"scheduler": "steps"}}, project=project)
    assert resolved.config.model.options == {}
    assert resolved.config.sampling.scheduler_options == {}
    assert resolved.config.sampling.steps == 100
    assert resolved.notes == (
        "model.options.window (file sora.yaml) is for tiny and not used",
        "sampling.scheduler_options.shift (file sora.yaml) is for flow and not used",
    )


def test_weights_of_the_parts_of_another_model_are_not_used(resolve):
    project = "model: {name: tiny, vae_weights: /v, text_weights: /t, text_dtype: bf16}\n"
    resolved = resolve(project=project)
    assert (resolved.config.model.vae_weights, resolved.config.model.text_dtype) == ("/v", "bf16")
    resolved = resolve({"model": {"name": "giant"}}, project=project)
    model = resolved.config.model
    assert (model.vae_weights, model.text_weights, model.text_dtype) == (None, None, "auto")
    assert resolved.notes == tuple(
        f"model.{name} (file sora.yaml) is for tiny and not used"
        for name in ("vae_weights", "text_weights", "text_dtype")
    )


def test_weights_of_another_part_are_not_used(resolve, plugins):
    """--vae on the command line does not take the weights that a file names for the model's own autoencoder."""
    plugins.add("text-encoder", TextEncoderSpec(name="letters", summary="s", target="t:t", width=8, max_tokens=8))
    project = "model: {vae_weights: /v, text_weights: /t}\n"
    resolved = resolve({"model": {"vae": "frames", "text_encoder": "letters"}}, project=project)
    assert (resolved.config.model.vae_weights, resolved.config.model.text_weights) == (None, None)
    assert resolved.notes == (
        "model.vae_weights (file sora.yaml) is for blocks and not used",
        "model.text_weights (file sora.yaml) is for words and not used",
        "model.vae is frames, but tiny was trained with blocks",
    )
    together = resolve({"model": {"vae": "frames", "vae_weights": "/f"}}, project=project).config.model
    assert (together.vae_weights, together.text_weights) == ("/f", "/t")


# -- settings that exclude each other ------------------------------------------------------------------------------


def test_a_weaker_size_gives_way_to_a_stronger_resolution(resolve):
    resolved = resolve({"shape": {"resolution": "360p"}}, project="shape: {size: 480x848, frames: 17}")
    assert (resolved.config.shape.size, resolved.config.shape.resolution) == (None, "360p")
    assert resolved.config.shape.frames == 17
    assert resolved.config.shape.duration is None
    assert resolved.notes == ("shape.size 480x848 (file sora.yaml) is not used: shape.resolution (flag) wins",)


def test_a_stronger_or_equal_size_wins(resolve):
    resolved = resolve({"shape": {"size": "480x848"}}, project="shape: {resolution: 360p}")
    assert (resolved.config.shape.size, resolved.config.shape.resolution) == ("480x848", None)
    assert resolved.notes == ()
    resolved = resolve({"shape": {"size": "480x848", "resolution": "360p"}})
    assert (resolved.config.shape.size, resolved.config.shape.resolution) == ("480x848", None)
    assert resolved.notes == ("shape.resolution 360p (flag) is not used: shape.size (flag) wins",)


def test_frames_and_duration(resolve):
    resolved = resolve({"shape": {"duration": "4s"}}, project="shape: {frames: 17}")
    assert (resolved.config.shape.frames, resolved.config.shape.duration) == (None, "4s")
    resolved = resolve({"shape": {"frames": 33}}, project="shape: {duration: 4s}")
    assert (resolved.config.shape.frames, resolved.config.shape.duration) == (33, None)


def test_a_file_rate_belongs_to_its_frame_rate(resolve, with_presets):
    with_presets({"models/tiny.yaml": "shape: {fps: 24, save_fps: 24}\n"})
    assert resolve().config.shape.save_fps == 24
    resolved = resolve({"shape": {"fps": 12}})
    assert (resolved.config.shape.fps, resolved.config.shape.save_fps) == (12, None)
    assert resolve({"shape": {"fps": 12, "save_fps": 30}}).config.shape.save_fps == 30


def test_a_prompt_file_on_the_command_line_replaces_stored_prompts(resolve):
    resolved = resolve({"prompt": {"file": "p.txt"}}, from_settings={"prompt": {"prompts": ["a"]}})
    assert (resolved.config.prompt.prompts, resolved.config.prompt.file) == ((), "p.txt")


# -- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        ({"project": "sampling:\n  stpes: 3\n"}, "sora.yaml:2: unknown setting 'sampling.stpes'", "mean 'steps'?"),
        ({"project": "steps: 3\n"}, "sora.yaml:1: unknown setting 'steps'", "mean 'sampling.steps'?"),
        ({"project": "shape: {seed: 3}\n"}, "unknown setting 'shape.seed'", "mean 'sampling.seed'?"),
        ({"project": "samplng: {}\n"}, "unknown setting 'samplng'", "mean 'sampling'?"),
        ({"project": "sampling: 3\n"}, "'sampling' must hold `name: value` lines, not 3", None),
        ({"project": "- 1\n"}, "sora.yaml: settings must be", None),
        ({"project": "model: {options: 3}\n"}, "'model.options' must hold", None),
        ({"project": "a: [\n"}, "sora.yaml:2: not valid YAML", None),
        ({"env": {"SORA_STEPS": "3"}}, "unknown variable SORA_STEPS", "mean 'SORA_SAMPLING__STEPS'?"),
        ({"env": {"SORA_SAMPLING__STEP": "3"}}, "unknown variable SORA_SAMPLING__STEP", "'SORA_SAMPLING__STEPS'?"),
        ({"env": {"SORA_PLUGIN": "x"}}, "unknown variable SORA_PLUGIN", "mean 'SORA_PLUGINS'?"),
        ({"env": {"SORA_MODEL__OPTIONS": "3"}}, "SORA_MODEL__OPTIONS must hold", None),
        ({"options": ["windwo=3"]}, "flag: unknown option 'windwo' of the model tiny", "mean 'window'?"),
        ({"options": ["xyz=3"]}, "unknown option 'xyz'", "has reference_rounding, window"),
        ({"options": ["scheduler.shfit=3"]}, "unknown option 'shfit' of the scheduler flow", "mean 'shift'?"),
        ({"options": ["window"]}, "-O 'window' is not KEY=VALUE", "example"),
        ({"options": ["window=[1"]}, "-O window: not valid YAML", None),
        ({"options": ["window=0"]}, "flag: model tiny, option window 0: must be greater than or equal to 1", None),
        ({"flags": {"sampling": {"steps": 0}}}, "--steps 0: must be greater than", None),
        ({"env": {"SORA_SAMPLING__STEPS": "many"}}, "environment SORA_SAMPLING__STEPS: sampling.steps 'many'", None),
        ({"flags": {"model": {"dtype": "bf15"}}}, "--dtype 'bf15': must be 'auto', 'fp32', 'bf16' or 'fp16'", None),
        ({"flags": {"model": {"name": "tinny"}}}, "unknown model 'tinny'", "mean 'tiny'?"),
        ({"flags": {"model": {"variant": "bse"}}}, "unknown variant of tiny 'bse'", "mean 'base'?"),
        ({"flags": {"model": {"vae": "block"}}}, "unknown vae 'block'", "mean 'blocks'?"),
        ({"flags": {"sampling": {"scheduler": "flwo"}}}, "unknown scheduler 'flwo'", "mean 'flow'?"),
        ({"flags": {"hardware": {"parallel": "singel"}}}, "unknown parallelism 'singel'", "mean 'single'?"),
        ({"flags": {"shape": {"resolution": "240"}}}, "unknown resolution '240'", "mean '240p'?"),
        ({"flags": {"model": {"attention": "flsh"}}}, "unknown attention backend 'flsh'", "mean 'flash'?"),
        ({"flags": {"conditioning": {"aes": float("nan")}}}, "--aes nan: must be", None),
        ({"flags": {"conditioning": {"motion": -1.0}}}, "--motion -1.0: must be", None),
        ({"preset": "fsat"}, "unknown preset 'fsat'", "mean 'fast'?"),
        ({"preset": "nano"}, "'nano' is a model, not a preset", "-m nano"),
        ({"flags": {"hardware": {"gpus": 2}}}, "2 GPUs asked for, but this machine has no NVIDIA GPU", "--gpus out"),
    ],
)
def test_mistakes_say_what_to_do(resolve, arguments, message, hint):
    with pytest.raises(UsageError) as caught:
        resolve(**arguments)
    assert message in caught.value.message
    assert caught.value.exit_code == 2
    if hint is not None:
        assert hint in (caught.value.hint or "")


def test_a_dry_run_needs_no_gpus(resolve):
    assert resolve({"hardware": {"gpus": 2}}, check_devices=False).config.hardware.gpus == 2
    with pytest.raises(UsageError, match="cannot be split into groups of 2"):
        resolve({"hardware": {"gpus": 3, "sequence_parallel": 2}}, check_devices=False)


@pytest.mark.parametrize(
    ("setting", "error"),
    [
        ("model: {name: tinny}", "unknown model 'tinny'"),
        ("model: {variant: bse}", "unknown variant of tiny 'bse'"),
        ("model: {attention: flsh}", "unknown attention backend 'flsh'"),
        ("model: {vae: block}", "unknown vae 'block'"),
        ("sampling: {scheduler: flwo}", "unknown scheduler 'flwo'"),
        ("hardware: {parallel: singel}", "unknown parallelism 'singel'"),
    ],
)
def test_a_wrong_name_in_a_file_says_in_which(resolve, setting, error):
    with pytest.raises(UsageError) as caught:
        resolve(project=setting)
    assert caught.value.message == f"file sora.yaml: {error}"
    assert "did you mean" in caught.value.hint


def test_a_shape_that_does_not_fit_says_where_it_comes_from(resolve):
    with pytest.raises(UsageError) as caught:
        resolve({"shape": {"aspect_ratio": "16:9"}}, project="shape: {resolution: 241p}\n")
    assert caught.value.message == "unknown resolution '241p'"
    assert caught.value.hint.splitlines()[-1] == "shape.resolution 241p comes from file sora.yaml"
    with pytest.raises(UsageError) as caught:
        resolve({"shape": {"resolution": "241p"}})
    assert "comes from" not in caught.value.hint


def test_lines_of_a_prompt_file_that_is_not_read(resolve):
    lines = {"start_index": 2, "end_index": 5}
    resolved = resolve({"prompt": {"prompts": ("a",), **lines}})
    assert resolved.notes == (
        "prompt.start_index (flag) is not used: there is no prompt file",
        "prompt.end_index (flag) is not used: there is no prompt file",
    )
    assert resolve({"prompt": {"file": "p.txt", **lines}}).notes == ()


def test_all_problems_of_one_kind_together(resolve):
    with pytest.raises(UsageError) as caught:
        resolve(project="sampling:\n  stpes: 3\n  guidanse: 3\nhardwear: {}\n")
    assert caught.value.message == "3 problems in the settings"
    lines = caught.value.hint.splitlines()
    assert [line.split(": ")[0].rsplit(":")[-1] for line in lines] == ["2", "3", "4"]
    with pytest.raises(UsageError, match="2 problems"):
        resolve(project="samplin: {}", env={"SORA_STEPS": "1"})
    with pytest.raises(UsageError) as caught:
        resolve({"sampling": {"steps": 0, "seed": -1}}, project="", env={"SORA_SHAPE__FPS": "0"})
    assert "--steps 0: must be" in caught.value.hint
    assert "--seed -1: must be" in caught.value.hint
    assert "environment SORA_SHAPE__FPS: shape.fps 0" in caught.value.hint


def test_other_variables_are_left_alone(resolve):
    resolved = resolve(env={"SORA_PLUGINS": "tiny", "SORA_DEBUG": "1", "SORACLE": "1"})
    assert not [origin for origin in resolved.origins.values() if origin.startswith("environment")]


def test_a_model_with_presets_but_without_a_plugin(resolve):
    with pytest.raises(
        MissingError, match=r"presets for the model 'opensora-v1\.2', but no installed plugin"
    ) as caught:
        resolve({"model": {"name": "opensora-v1.2"}})
    assert caught.value.exit_code == 3
    assert "sora plugins list --kind model" in caught.value.hint


def test_a_plugin_whose_options_do_not_import(resolve, plugins):
    import dataclasses

    plugins.add("model", dataclasses.replace(plugins.get("model", "tiny"), options="nowhere.at_all:Options"))
    with pytest.raises(SoraError, match="model tiny"):
        resolve({"model": {"name": "tiny"}})


# -- launch presets ------------------------------------------------------------------------------------------------

LAUNCH = """
- when: {resolution: 240p, duration: 2s, gpus: 1, min_memory_gib: 40}
  run: {processes: 1, sequence: 1, dtype: bf16, offload: none, decode_frames: 3}
  env: {A: "1"}
  expect: {memory_gib: 30, source: estimated}
- when: {gpus: 2}
  run: {processes: 2, sequence: 2, dtype: bf16}
- when: {}
  run: {offload: block}
"""


def test_the_launch_preset_fills_what_is_open(resolve, with_presets, gpus):
    with_presets({"launch/tiny.yaml": LAUNCH, "models/tiny.yaml": "model: {dtype: fp16}\n"})
    named = {"model": {"name": "tiny"}}
    resolved = resolve(named)
    assert (resolved.config.hardware.offload, resolved.origins["hardware.offload"]) == (
        "block",
        "launch preset tiny #3",
    )
    assert (resolved.config.model.dtype, resolved.origins["model.dtype"]) == ("fp16", "model preset tiny")
    gpus(2, 80.0)
    resolved = resolve(named)
    assert resolved.launch.expect["memory_gib"] == 30
    assert (resolved.config.model.dtype, resolved.config.hardware.decode_frames) == ("bf16", 3)
    resolved = resolve(named, project="model: {dtype: fp32}\nhardware: {offload: model}")
    assert (resolved.config.model.dtype, resolved.config.hardware.offload) == ("fp32", "model")
    resolved = resolve({**named, "hardware": {"gpus": 2}})
    assert (resolved.launch.number, resolved.config.hardware.sequence_parallel) == (2, 2)


def test_several_machines_run_like_each_of_them(resolve, with_presets, gpus):
    """Processes that share a clip stay on one machine, so the entry is the one for its GPUs."""
    with_presets({"launch/tiny.yaml": LAUNCH})
    gpus(2, 80.0)
    hardware = {"gpus": 2, "nnodes": 2, "rdzv_endpoint": "first:29500"}
    resolved = resolve({"model": {"name": "tiny"}, "hardware": hardware})
    assert (resolved.launch.number, resolved.config.hardware.sequence_parallel) == (2, 2)


def test_sizes_without_a_name_use_the_entry_that_covers_them(resolve, with_presets, gpus):
    with_presets({"launch/tiny.yaml": LAUNCH})
    gpus(1, 80.0)
    for shape, number in (
        ({"size": "144x256", "frames": 17}, 1),
        ({"size": "240x424", "duration": "1s"}, 1),
        ({"resolution": "256", "aspect_ratio": "1:1"}, 1),
        ({"size": "480x848"}, 3),
        ({"duration": "4s"}, 3),
    ):
        assert resolve({"model": {"name": "tiny"}, "shape": shape}).launch.number == number, shape


# -- stored settings -----------------------------------------------------------------------------------------------


def test_stored_settings_give_the_same_configuration_back(resolve):
    flags = {
        "prompt": {"prompts": ["a cat", "a dog"], "negative": "rain"},
        "shape": {"resolution": "360p", "aspect_ratio": "1:1", "frames": 17},
        "sampling": {"steps": 3, "num_samples": 2, "batch_size": 2, "seed": 5},
        "conditioning": {"motion": 4.0},
        "output": {"path": "x", "crf": 20},
        "hardware": {"device": "cpu", "threads": 1},
    }
    config = resolve(flags, options=["window=2"]).config
    stored = json.loads(json.dumps(settings_of(config)))
    back = resolve(from_settings=stored).config
    assert settings_of(back) == stored
    for section in ("prompt", "shape", "conditioning", "model"):
        assert getattr(back, section) == getattr(config, section)
    # What only says where and how fast is not stored.
    assert stored["output"] == {"crf": 20}
    assert "hardware" not in stored
    assert "batch_size" not in stored["sampling"]
    # The record in a video holds the same under "config".
    assert resolve(from_settings={"settings_hash": "0", "config": stored}).config == back


def test_settings_of_one_clip(resolve):
    config = resolve({"prompt": {"prompts": ["a", "b"]}, "sampling": {"num_samples": 3}}).config
    stored = settings_of(config, prompt="b", seed=44)
    # With what keeps a sora.yaml from refining the prompt of a clip that is made again.
    assert stored["prompt"] == {"prompts": ["b"], "refine": False, "refine_motion": False}
    assert (stored["sampling"]["seed"], stored["sampling"]["num_samples"]) == (44, 1)


def test_a_flag_beats_stored_settings(resolve):
    stored = settings_of(resolve({"sampling": {"seed": 5}, "shape": {"size": "64x64"}}).config)
    resolved = resolve({"shape": {"resolution": "144p"}}, from_settings=stored)
    assert (resolved.config.sampling.seed, resolved.config.shape.size) == (5, None)
    assert resolved.config.shape.resolution == "144p"


def test_a_given_video_of_the_wrong_kind_is_said_with_its_key(plugins, tmp_path) -> None:
    file = tmp_path / "c.yaml"
    wrong = (("connect", "5"), ("connect", "{a: b}"), ("extend", "[a, b]"), ("edit", "{a: b}"))
    for name, value in wrong:
        file.write_text(f"conditioning: {{{name}: {value}}}\n")
        with pytest.raises(UsageError, match=f"c.yaml: conditioning.{name}"):
            resolve_generate({}, config_file=file, plugins=plugins, video_shape=lambda text: None)


def test_the_origin_of_a_size_shows_no_secret(plugins) -> None:
    given = {"conditioning": {"edit": "http://bob:hunter2@x.org/a.mp4?token=abc123"}, "prompt": {"prompts": ["a"]}}
    resolved = resolve_generate(given, plugins=plugins, video_shape=lambda text: ("96x96", 12.0))
    assert resolved.config.shape.fps == 12
    assert "x.org/a.mp4" in resolved.origins["shape.fps"]
    assert "hunter2" not in str(resolved.origins)
    assert "abc123" not in str(resolved.origins)
