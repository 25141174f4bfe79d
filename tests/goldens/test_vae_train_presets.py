"""Golden topic `train_presets`, group `vae_presets`: our recipes of the autoencoder are the released ones, renamed."""

from __future__ import annotations

from typing import Any

import pytest
from loader import cases

from sora_cli.config.vae_schema import VaeTrainConfig
from sora_cli.presets import load_preset

TOPIC, GROUP = "train_presets", "vae_presets"
RENAMED = {
    "num_frames": "data.num_frames",
    "batch_size": "data.batch_size",
    "num_workers": "data.workers",
    "mixed_image_ratio": "data.image_share",
    "dtype": "vae.dtype",
    "grad_checkpoint": "vae.gradient_checkpointing",
    "plugin": "hardware.sharding",
    "perceptual_loss_weight": "loss.perceptual_weight",
    "kl_loss_weight": "loss.kl_weight",
    "use_real_rec_loss": "loss.pixels",
    "use_z_rec_loss": "loss.frame_latents",
    "use_image_identity_loss": "loss.identity",
    "seed": "run.seed",
    "outputs": "run.folder",
    "wandb": "run.wandb",
    "epochs": "run.epochs",
    "log_every": "run.log_every",
    "ckpt_every": "run.checkpoint_every",
    "load": "run.load",
    "lr": "optimizer.learning_rate",
    "grad_clip": "optimizer.gradient_clip",
}
MIXING = {"mixed_video_image": "image", "mixed_video_random": "length"}
#: Where stages start: the first from what the released model takes its spatial part from.
STARTS = {None: "sdxl-vae", "outputs/vae_stage1": "outputs/vae-stage1", "outputs/vae_stage2": "outputs/vae-stage2"}


def wanted(released: dict[str, Any]) -> dict[str, Any]:
    found = {RENAMED[key]: value for key, value in released.items() if key in RENAMED}
    rest = {key for key in released if key not in RENAMED}
    assert rest == {"image_size", "dataset", "model", "mixed_strategy"} & rest | {"dataset", "model"}
    data, model = released["dataset"], released["model"]
    assert data["num_frames"] == released["num_frames"]
    found["data.size"] = "{}x{}".format(*data["image_size"])
    found["data.frame_interval"] = data["frame_interval"]
    found["data.mixing"] = MIXING[released["mixed_strategy"]]
    found["vae.freeze"] = ["spatial_vae"] if model["freeze_vae_2d"] else []
    found["vae.weights"] = STARTS[model["from_pretrained"]]
    found["run.folder"] = None  # named by the recipe: outputs/vae-stage1 and so on
    return found


@pytest.mark.parametrize("case", cases(TOPIC, GROUP, "presets"))
def test_recipe(case):
    stage = case.pop("name")
    preset = load_preset("vae", f"vae-{stage}")
    config = VaeTrainConfig.model_validate(preset).model_dump(mode="json")
    for key, value in wanted(case).items():
        section, name = key.split(".")
        assert config[section][name] == value, key
    assert config["data"]["transform"] == "center"
    assert config["optimizer"]["ema_decay"] == 0, "no average was kept"
