"""Golden topic `vae_losses`: reconstruction, KL and adversarial losses, and one step of each stage of training."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from checks import check_tensors, close
from loader import cases, load_tensors, read
from recipe import lpips_weights

from sora_cli.config.vae_schema import DiscriminatorSection, LossSection
from sora_cli.training import autoencoder_losses as losses
from sora_cli.training.adversary import Adversary
from sora_cli.training.autoencoder import AutoencoderObjective
from sora_cli.training.engine import Engine, EngineOptions
from sora_plugins.discriminators.config import PatchOptions
from sora_plugins.discriminators.patch import PatchDiscriminator
from sora_plugins.metrics.lpips import Lpips
from sora_plugins.metrics.trunks import VGG16
from sora_plugins.opensora_vae.config import VideoAutoencoderConfig
from sora_plugins.opensora_vae.model import VideoAutoencoder
from sora_plugins.sd_vae.gaussian import DiagonalGaussian

TOPIC = "vae_losses"


def lpips(recipe) -> Lpips:
    """With the weights that the recipe gives."""
    network = Lpips(VGG16)
    network.load_state_dict({**network.state_dict(), **lpips_weights(recipe["seed"], recipe["keys"])}, strict=True)
    return network


@pytest.fixture(scope="module")
def perceptual():
    return lpips(read(TOPIC, "vae_loss")["weight_recipe"])


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
    return params["discriminator_factor"] if params["global_step"] >= params["discriminator_start"] else 0.0


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


# -- one update of each stage --------------------------------------------------------------------------------------


def autoencoder(described, params) -> VideoAutoencoder:
    tiny = read("vae_v1_2", "tiny")
    config = VideoAutoencoderConfig.from_mapping(tiny["config"])
    network = VideoAutoencoder(dataclasses.replace(config, micro_frame_size=params["micro_frame_size"]))
    network.load_state_dict(load_tensors("vae_v1_2", tiny["weights"]), strict=True)
    if params["freeze"]:
        network.spatial_vae.requires_grad_(False)
    return network.train()


def make_adversary(described, gan) -> Adversary:
    config = described["discriminator_config"]
    options = PatchOptions(in_channels=config["input_nc"], filters=config["ndf"], num_layers=config["n_layers"])
    network = PatchDiscriminator(options)
    network.load_state_dict(load_tensors(TOPIC, described["discriminator_weights"]), strict=True)
    section = DiscriminatorSection(name="patch-2d", start=gan["start"], loss=gan["dtype"], generator_loss=gan["type"])
    made = Adversary(Engine(network, EngineOptions()), section, takes="frames", num_frames=1)
    made.step = gan["step"]
    return made


def noise_of(inputs):
    pieces = [inputs[f"noise_temporal_{index}"] for index in range(len(inputs)) if f"noise_temporal_{index}" in inputs]
    return inputs["noise_spatial"], pieces


@pytest.mark.parametrize("case", cases(TOPIC, "train_step"))
def test_one_update(case):
    described, params, expected = read(TOPIC, "train_step"), case["params"], case["expected_scalars"]
    tensors = load_tensors(TOPIC, described["tensors"])
    x = load_tensors("vae_v1_2", read("vae_v1_2", "tiny")["tensors"])["x"][:, :, : params["T"]]
    network, perceptual = autoencoder(described, params), lpips(described["lpips_weight_recipe"])
    adversary = make_adversary(described, params["gan"]) if "gan" in params else None
    options = LossSection(
        pixels=params["real"],
        frame_latents=params["zrec"],
        identity=params["ident"],
        perceptual_weight=params["perceptual_loss_weight"],
        kl_weight=params["kl_loss_weight"],
    )
    objective = AutoencoderObjective(options, 0, perceptual, adversary, network.last_layer)
    out = network(x, noise=noise_of({name: tensors[key] for name, key in case["inputs"].items()}))
    total = objective.total(x, out)
    total.backward()
    parameters = dict(network.named_parameters())
    pulls = {name: each.grad for name, each in parameters.items() if each.grad is not None}
    norm = torch.stack([pull.double().norm() for pull in pulls.values()]).norm()
    found = {
        "vae_loss": total,
        "grad_l2": norm,
        "clip_scale": min(1.0, 1.0 / (float(norm) + 1e-6)),
        "grad_last_layer_l2": network.last_layer().grad.norm(),
        # The reference's posterior is that of the last piece alone; ours, of all of them, is in the loss.
        "kl_unweighted": out.posteriors[-1].kl().sum() / len(x),
        "kl_loss": params["kl_loss_weight"] * out.posteriors[-1].kl().sum() / len(x),
        "z_nll_loss": losses.reconstruction_loss(out.encoded_frames, out.frame_latents)[0],
        "nll_loss": losses.reconstruction_loss(x, out.pixels, perceptual=perceptual)[0],
        "image_identity_loss": objective.parts.get("identity_loss"),
        "adversarial_loss": objective.parts.get("adversarial_loss", 0.0),
    }
    if adversary is not None:
        said = adversary.learn(is_last=True, share=1.0)
        grads = [p.grad.double().norm() for p in adversary.engine.network.parameters() if p.grad is not None]
        found["disc_loss"] = 0.0 if said is None else said
        found["disc_grad_l2"] = torch.stack(grads).norm() if grads else 0.0
    for name, value in expected.items():
        close(case, torch.as_tensor(found[name]).detach(), value, name)
    still = [name for name, each in parameters.items() if each.requires_grad and name not in pulls]
    assert len(still) == params["n_zero_grad"]
    assert set(params["zero_grad_keys"]) <= set(still)
    if params["kl_loss_weight"] and params["real"]:
        kl = params["kl_loss_weight"] * losses.kl_loss(out.posteriors, len(x))
        torch.testing.assert_close(objective.parts["kl_loss"], kl.detach())
