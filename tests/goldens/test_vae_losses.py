"""Golden topic `vae_losses`: reconstruction, KL and adversarial losses, and one step of each stage of training."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from checks import check_tensors, close
from loader import cases, load_tensors, read
from recipe import fill

from sora_cli.training import autoencoder_losses as losses
from sora_cli.training.autoencoder import AutoencoderObjective, LossOptions
from sora_plugins.discriminators.config import PatchOptions
from sora_plugins.discriminators.patch import PatchDiscriminator
from sora_plugins.metrics.lpips import Lpips
from sora_plugins.opensora_vae.config import VideoAutoencoderConfig
from sora_plugins.opensora_vae.model import VideoAutoencoder
from sora_plugins.sd_vae.gaussian import DiagonalGaussian

TOPIC = "vae_losses"


def lpips(described) -> Lpips:
    """With the weights that the recipe gives."""
    network, recipe = Lpips("vgg16"), described.get("weight_recipe") or described["lpips_weight_recipe"]
    tensors = {}
    for key, shape in recipe["keys"].items():
        is_linear, is_bias = key.startswith("lin"), len(shape) == 1
        std = 1.0 if is_linear else 0.1 if is_bias else math.sqrt(2.0 / math.prod(shape[1:]))
        drawn = fill(recipe["seed"], key, tuple(shape), mean=0.0, std=std)
        tensors[key] = drawn.abs() if is_linear else drawn
    network.load_state_dict({**network.state_dict(), **tensors}, strict=True)
    return network


@pytest.fixture(scope="module")
def perceptual():
    return lpips(read(TOPIC, "vae_loss"))


@pytest.mark.parametrize("case", cases(TOPIC, "vae_loss"))
def test_reconstruction_and_kl(case, perceptual):
    params, tensors = case["params"], load_tensors(TOPIC, read(TOPIC, "vae_loss")["tensors"])
    inputs = {name: tensors[key] for name, key in case["inputs"].items()}
    recon, moments = inputs["recon"].requires_grad_(), inputs["moments"].requires_grad_()
    logvar = torch.tensor(params["logvar_init"], requires_grad=True)
    nll, weighted = losses.reconstruction_loss(
        inputs["video"],
        recon,
        perceptual=None if params["no_perceptual"] else perceptual,
        perceptual_weight=params["perceptual_loss_weight"],
        logvar=logvar,
        weights=inputs["nll_weights"] if params["nll_weights"] == "input" else params["nll_weights"],
    )
    kl = params["kl_loss_weight"] * losses.kl_loss([DiagonalGaussian(moments)], len(moments))
    (weighted + kl).backward()
    found = {
        "nll_loss": nll,
        "weighted_nll_loss": weighted,
        "weighted_kl_loss": kl,
        "grad_recon_l2": recon.grad.norm(),
        "grad_recon_sum": recon.grad.sum(),
        "grad_moments_l2": moments.grad.norm(),
        "grad_logvar": logvar.grad,
    }
    for name, value in case["expected_scalars"].items():
        if name != "backward_of":
            close(case, found[name].detach(), value, name)


# -- adversarial ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", cases(TOPIC, "gan_losses"))
def test_adversarial(case):
    tensors = load_tensors(TOPIC, read(TOPIC, "gan_losses")["tensors"])
    inputs = {name: tensors[key].requires_grad_() for name, key in case["inputs"].items()}
    ADVERSARIAL[case["params"]["op"]](case, case["params"], inputs, tensors)


def factor(params) -> float:
    return losses.factor_at(params["global_step"], params["discriminator_start"], params["discriminator_factor"])


def discriminator(case, params, inputs, tensors):
    real, fake = inputs["real_logits"], inputs["fake_logits"]
    loss = factor(params) * losses.discriminator_loss(params["type"], real, fake)
    loss.backward()
    found = {"loss": loss.detach(), "grad_real_l2": real.grad.norm(), "grad_fake_l2": fake.grad.norm()}
    for name, value in case["expected_scalars"].items():
        close(case, found[name], value, name)


def cross_entropy(case, params, inputs, tensors):
    found = {f"label{label}": losses.sigmoid_cross_entropy(label, inputs["logits"]) for label in (0, 1)}
    check_tensors(case, tensors, found)


def adversarial(case, params, inputs, tensors):
    w = inputs["W"]
    rec = torch.nn.functional.conv3d(inputs["h"], w)
    nll = (rec - inputs["target"]).abs().sum() / 2
    gen = losses.generator_loss(params["type"], (rec * inputs["c"]).sum(dim=(1, 3, 4)))
    weight = params["generator_factor"] * losses.adaptive_weight(nll, gen, w)
    weighted = weight * factor(params) * gen
    weighted.backward()
    found = {
        "weighted_gen_loss": weighted.detach(),
        "gen_loss": gen.detach(),
        "nll_loss": nll.detach(),
        "adaptive_weight_times_generator_factor": weight,
        "grad_W_l2": w.grad.norm(),
    }
    for name, value in case["expected_scalars"].items():
        close(case, found[name], value, name)


def lecam_averages(case, params, inputs, tensors):
    averages = losses.LecamAverages(*params["init"], decay=params["decay"])
    found = []
    for step in range(len(case["expected_scalars"]["sequence"])):
        real, fake = inputs["real_logits"].mean(), inputs["fake_logits"].mean()
        averages.update(real * (step + 1), fake * (step - 1))
        found.append([averages.real, averages.fake])
    close(case, found, case["expected_scalars"]["sequence"])


def lecam(case, params, inputs, tensors):
    averages = losses.LecamAverages(params["ema_real"], params["ema_fake"])
    loss = params["weight"] * averages.loss(inputs["real_logits"], inputs["fake_logits"])
    close(case, loss.detach(), case["expected_scalars"]["lecam_loss"])


def penalty(case, params, inputs, tensors):
    def discriminate(video):
        return (torch.tanh((video * inputs["w"]).flatten(1).sum(1)) + video.square().flatten(1).mean(1))[:, None]

    found = params["weight"] * losses.gradient_penalty(discriminate, inputs["video"])
    close(case, found.detach(), case["expected_scalars"]["penalty"])


ADVERSARIAL = {
    "discriminator_loss": discriminator,
    "sigmoid_cross_entropy": cross_entropy,
    "adversarial_loss": adversarial,
    "lecam_ema": lecam_averages,
    "lecam_loss": lecam,
    "gradient_penalty": penalty,
}
