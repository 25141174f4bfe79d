"""Golden topic `train_presets`: our recipes are the released ones, after renaming.

Every key of a released preset is in one of the tables below; whatever a recipe says beyond them must be a default.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from loader import cases

from sora_cli.config.train_schema import TrainConfig
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
    "model.space_scale": "model.options.space_scale",
    "model.time_scale": "model.options.time_scale",
    "model.no_temporal_pos_emb": "model.options.no_temporal_pos_emb",
}
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
    "vae.local_files_only": "files on the machine are always taken first",
    "vae.micro_frame_size": "the code of this autoencoder",
    "text_encoder.type": "the model's text encoder",
    "text_encoder.from_pretrained": "the model's text encoder",
    "text_encoder.model_max_length": "of the model's architecture",
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
    "PixArt-XL/2": "pixart-alpha-512",
}
SCHEDULERS = {"rflow": "rectified_flow", "iddpm": "iddpm", "iddpm-speed": "iddpm"}
PLUGINS = {"zero2": "zero2", "zero2-seq": "zero2"}


def recipe_name(version: str, name: str) -> str:
    short = re.sub(r"(256|512)x\1", r"\1", name).replace("_", "-")
    return f"{version}-{re.sub('-spee(?=-|$)', '-speed', re.sub('-feat$', '-features', short))}"


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
            assert key in {*ELSEWHERE, *SPECIAL}, f"the key {key} has no place"
    found["hardware.sharding"] = PLUGINS[released["plugin"]]
    found["hardware.sequence_parallel"] = released["sp_size"] if released["sp_size"] > 1 else None
    found["model.name"] = MODELS[released["model.type"]]
    found["objective.scheduler"] = SCHEDULERS[released["scheduler.type"]]
    if released["scheduler.type"] == "iddpm-speed":
        found["objective.scheduler_options.speed"] = True
    found["model.freeze"] = ("y_embedder",) if released.get("model.freeze_y_embedder") else ()
    start = released["model.from_pretrained"] or ""
    if start.startswith("PixArt") and found["model.name"] != "pixart-alpha-512":
        found["model.weights"] = "pixart-alpha-512"
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
    "model.from_pretrained", "model.freeze_y_embedder", "scheduler.type",
}  # fmt: skip


def as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


DEFAULTS_OF_OPTIONS = {
    "objective.scheduler_options.sample_method": "uniform",
    "objective.scheduler_options.use_timestep_transform": False,
    "model.options.space_scale": 1.0,
    "model.options.time_scale": 1.0,
}


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
        beyond = {
            key for key, value in given.items() if as_json(value) != as_json(default.get(key)) and key not in asked
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
