"""Golden topic `train_presets`: our recipes are the released ones, after renaming.

Every key of a released preset is in one of the tables below; whatever a recipe says beyond them must be a default.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from loader import cases

from sora_cli.config.train_schema import TrainConfig
from sora_cli.plugin.manager import get_plugins
from sora_cli.presets import load_preset

#: Keys whose values are taken over.
RENAMED = {
    "seed": "run.seed",
    "epochs": "run.epochs",
    "log_every": "run.log_every",
    "ckpt_every": "run.checkpoint_every",
    "wandb": "run.wandb",
    "load": "run.load",
    "lr": "optimizer.learning_rate",
    "adam_betas": "optimizer.betas",
    "adam_eps": "optimizer.eps",
    "weight_decay": "optimizer.weight_decay",
    "warmup_steps": "optimizer.warmup_steps",
    "grad_clip": "optimizer.gradient_clip",
    "ema_decay": "optimizer.ema_decay",
    "dtype": "model.dtype",
    "grad_checkpoint": "model.gradient_checkpointing",
    "vae.micro_batch_size": "model.vae_batch_size",
    "plugin": "hardware.sharding",
    "num_workers": "data.workers",
    "prefetch_factor": "data.prefetch",
    "cache_pin_memory": "data.pin_memory",
    "dataset.frame_interval": "data.frame_interval",
    "dataset.transform_name": "data.transform",
    "scheduler.sample_method": "objective.scheduler_options.sample_method",
    "scheduler.use_timestep_transform": "objective.scheduler_options.use_timestep_transform",
}
#: Fields of the network, which a variant of the model has or an option changes.
ARCHITECTURE = ("space_scale", "time_scale", "no_temporal_pos_emb")
#: Keys without a place of their own, and why.
ELSEWHERE = {
    "outputs": "the folder of a run is named by its recipe",
    "start_from_scratch": "loading into a new run is what run.load does",
    "record_time": "times are always recorded",
    "num_bucket_build_workers": "buckets are assigned by arrays, in seconds",
    "reduce_bucket_size_in_m": "chosen by torch",
    "pin_memory_cache_pre_alloc_numels": "page-locked memory is taken as it is needed",
    "load_video_features": "known from what --data names",
    "load_text_features": "known from what --data names",
    "vae_out_channels": "known from the autoencoder's description",
    "text_encoder_output_dim": "known from the text encoder's description",
    "model_max_length": "known from the model's architecture",
    "dataset.type": "known from what --data names and whether there are buckets",
    "dataset.data_path": "given with --data",
    "dataset.dummy_text_feature": "for measuring only",
    "model.enable_flash_attn": "model.attention chooses by itself",
    "model.enable_layernorm_kernel": "a choice of kernels",
    "model.enable_sequence_parallelism": "follows hardware.sequence_parallel",
    "model.input_sq_size": "of the model's architecture",
    "model.qk_norm": "of the model's architecture",
    "model.qk_norm_legacy": "of the model's architecture",
    "model.skip_y_embedder": "known from the features",
    "vae.type": "the model's autoencoder",
    "vae.from_pretrained": "the model's autoencoder",
    "vae.subfolder": "the model's autoencoder",
    "vae.local_files_only": "files on the machine are always taken first",
    "vae.micro_frame_size": "the code of this autoencoder",
    "text_encoder.type": "the model's text encoder",
    "text_encoder.from_pretrained": "the model's text encoder",
    "text_encoder.shardformer": "a choice of kernels",
    "text_encoder.local_files_only": "files on the machine are always taken first",
    "scheduler.num_sampling_steps": "of sampling",
    "scheduler.cfg_scale": "of sampling",
    "scheduler.cfg_channel": "of sampling",
}
#: Options of schedulers that have the same values here without being said.
DEFAULTS = {
    "scheduler.num_timesteps": 1000,
    "scheduler.diffusion_steps": 1000,
    "scheduler.loc": 0.0,
    "scheduler.scale": 1.0,
    "scheduler.transform_scale": 1.0,
    "scheduler.use_discrete_timesteps": False,
    "scheduler.learn_sigma": True,
    "scheduler.noise_schedule": "linear",
    "scheduler.predict_xstart": False,
    "scheduler.rescale_learned_sigmas": False,
    "scheduler.sigma_small": False,
    "scheduler.use_kl": False,
    "scheduler.timestep_respacing": "",
}
MODELS = {
    "STDiT-XL/2": "opensora-v1.0",
    "STDiT2-XL/2": "opensora-v1.1",
    "STDiT3-XL/2": "opensora-v1.2",
    "DiT-XL/2": "dit-text",
    "Latte-XL/2": "latte-text",
    "PixArt-XL/2": "pixart-alpha-512",
    "PixArt-1B/2": "pixart-1b",
}
#: PixArt of clips is a model of its own.
PIXART_CLIPS = "pixart-video"
#: Released file that training starts from -> model that has it.
STARTS = {"PixArt-XL-2-512x512.pth": "pixart-alpha-512", "DiT-XL-2-256x256.pt": "dit-xl-2-256"}
#: Nobody has this file, so it is given with --weights.
UNRELEASED = "PixArt-1B-2.pth"
SCHEDULERS = {"rflow": "rectified_flow", "iddpm": "iddpm", "iddpm-speed": "iddpm"}
PLUGINS = {"zero2": "zero2", "zero2-seq": "zero2"}


#: A recipe whose name tells of another size than its clips have, and one of a model with two recipes.
RECIPES = {"pixart-64x512": "pixart-64x256", "pixart-1x2048": "pixart-1b-1x2048"}


def recipe_name(version: str, name: str) -> str:
    if version == "baselines":
        version, _, name = name.split("/")
    short = re.sub(r"(256|512|2048)x\1", r"\1", name).replace("_", "-")
    found = f"{version}-{re.sub('-spee(?=-|$)', '-speed', re.sub('-feat$', '-features', short))}"
    return RECIPES.get(found, found)


def flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found = {}
    for key, value in nested.items():
        is_group = isinstance(value, dict) and key in ("dataset", "model", "vae", "text_encoder", "scheduler")
        found.update(flat(value, f"{key}.") if is_group else {prefix + key: value})
    return found


def buckets(entries: list[dict[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for entry in entries:
        chance = entry["keep_prob"] if entry["length_prob"] is None else [entry["keep_prob"], entry["length_prob"]]
        table.setdefault(entry["resolution"], {})[entry["num_frames"]] = [chance, entry["batch_size"]]
    return table


def wanted(case: dict[str, Any], version: str) -> dict[str, Any]:
    """The settings that the released preset asks for, by our names; those at our defaults may be among them."""
    released, corrected = flat(case["effective"]), case.get("corrected", {})
    released.update(flat(corrected))
    found: dict[str, Any] = {}
    has_one_size = released.pop("dataset.type") == "VideoTextDataset"
    for key, value in released.items():
        if key in RENAMED:
            found[RENAMED[key]] = value
        elif key in DEFAULTS:
            assert value == DEFAULTS[key]
        else:
            assert key in {*ELSEWHERE, *SPECIAL, *(f"model.{name}" for name in ARCHITECTURE)}, key
    found["hardware.sharding"] = PLUGINS[released["plugin"]]
    found["hardware.sequence_parallel"] = released["sp_size"] if released["sp_size"] > 1 else None
    found["model.name"] = MODELS[released["model.type"]]
    if released["model.type"].startswith("PixArt") and released["dataset.num_frames"] > 1:
        found["model.name"] = PIXART_CLIPS
    found["objective.scheduler"] = SCHEDULERS[released["scheduler.type"]]
    if released["scheduler.type"] == "iddpm-speed":
        found["objective.scheduler_options.speed"] = True
    found["model.freeze"] = ("y_embedder",) if released.get("model.freeze_y_embedder") else ()
    start = released.get("model.from_pretrained") or ""
    if start.endswith((".pt", ".pth")) and start != UNRELEASED and STARTS[start] != found["model.name"]:
        found["model.weights"] = STARTS[start]
    masks = corrected.get("mask_ratios") or case["as_written"].get("mask_ratios")
    found["objective.mask_ratios"] = masks and dict(masks)
    if has_one_size:
        found["data.num_frames"] = released["dataset.num_frames"]
        found["data.size"] = "{}x{}".format(*released["dataset.image_size"])
        found["data.batch_size"] = released["batch_size"]
    else:
        found["data.bucket_config"] = released["bucket_config"] and buckets(released["bucket_config"])
    if version == "v1.1" and not has_one_size:  # training.md 2.3: what the weights were trained with
        found.update({"data.fps_condition": "source", "data.aspect_condition": "w_over_h"})
    return found


#: Keys that `wanted` reads.
SPECIAL = {
    "sp_size", "batch_size", "bucket_config", "mask_ratios", "dataset.num_frames", "dataset.image_size", "model.type",
    "model.from_pretrained", "model.freeze_y_embedder", "scheduler.type", "text_encoder.model_max_length",
}  # fmt: skip


def as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


DEFAULTS_OF_OPTIONS = {
    "objective.scheduler_options.sample_method": "uniform",
    "objective.scheduler_options.use_timestep_transform": False,
}


def architecture(config: TrainConfig) -> dict[str, Any]:
    """The network that a recipe trains."""
    spec = get_plugins().get("model", config.model.name)
    return {**spec.variants[config.model.variant or next(iter(spec.variants))], **config.model.options}


def text_encoder(config: TrainConfig) -> str:
    """What reads the captions of a recipe."""
    return config.model.text_encoder or get_plugins().get("model", config.model.name).text_encoder


@pytest.mark.parametrize("group", cases("train_presets", "presets", "presets"))
def test_recipes(group):
    version = group.pop("name")
    assert group
    for name, case in group.items():
        nested = load_preset("train", recipe_name(version, name))
        config = TrainConfig.model_validate(nested)
        given, default = settings(config), settings(TrainConfig())
        asked = wanted(case, version)
        for key, value in asked.items():
            at_default = default.get(key, DEFAULTS_OF_OPTIONS.get(key))
            assert as_json(given.get(key, at_default)) == as_json(value), f"{name}: {key}"
        network = architecture(config)
        for field in ARCHITECTURE:
            at_default = {"no_temporal_pos_emb": False}.get(field, 1.0)
            wanted_field = case["effective"]["model"].get(field, at_default)
            assert network.get(field, at_default) == wanted_field, f"{name}: {field}"
        encoder = get_plugins().get("text-encoder", text_encoder(config))
        released = case["effective"].get("text_encoder")  # none with features
        if released and encoder.max_tokens > 1:  # CLIP gives one vector of all
            assert encoder.max_tokens == released["model_max_length"], name
        chosen = {"model.variant", "model.text_encoder", *(f"model.options.{field}" for field in ARCHITECTURE)}
        beyond = {
            key
            for key, value in given.items()
            if as_json(value) != as_json(default.get(key)) and key not in {*asked, *chosen}
        }
        assert not beyond, f"{name} says {beyond}"
        if masks := asked["objective.mask_ratios"]:
            assert list(given["objective.mask_ratios"]) == list(masks), f"{name}: the order of masks counts"


def settings(config: TrainConfig) -> dict[str, Any]:
    """Values by dotted key; options of models and schedulers one by one."""
    found = {}
    for section, values in config.model_dump().items():
        for name, value in values.items():
            spread = {f".{key}": one for key, one in value.items()} if name.endswith("options") else {"": value}
            found.update({f"{section}.{name}{key}": one for key, one in spread.items()})
    return found
