"""Golden topic `vae_v1_2`: the combined autoencoder, piece by piece."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from checks import check_gradients, check_tensors, close
from loader import cases, load_tensors, of_operations, read

from sora_plugins.opensora_vae.config import VideoAutoencoderConfig
from sora_plugins.opensora_vae.model import VideoAutoencoder
from sora_plugins.sd_vae import slabs

TOPIC = "vae_v1_2"


def network(micro_frame_size: int | None) -> VideoAutoencoder:
    described = read(TOPIC, "tiny")
    config = VideoAutoencoderConfig.from_mapping(described["config"])
    made = VideoAutoencoder(dataclasses.replace(config, micro_frame_size=micro_frame_size))
    made.load_state_dict(load_tensors(TOPIC, described["weights"]), strict=True)
    return made


def noise_of(inputs):
    pieces = [inputs[f"noise_temporal_{index}"] for index in range(len(inputs)) if f"noise_temporal_{index}" in inputs]
    return (inputs["noise_spatial"], pieces) if pieces else None


def encode(case, made, tensors, inputs):
    params = case["params"]
    x, noise = inputs["x"][:, :, : params["T"]], noise_of(inputs)
    with torch.inference_mode():
        raw, posteriors, frames = made.encode_raw(x, sample=noise is not None, noise=noise)
        actual = {
            "z": (raw - made.shift) / made.scale,
            "z_raw": raw,
            "x_z": frames,
            "last_chunk_mean": posteriors[-1].mean,
            "last_chunk_logvar": posteriors[-1].logvar,
        }
        check_tensors(case, tensors, actual)
        if noise is None:
            at_once = params["micro_batch_size"]
            close(case, made.encode(x, sample=False, frames_at_once=at_once), tensors[case["expected"]["z"]], "encode")
            assert list(made.get_latent_size(tuple(x.shape[2:]))) == params["latent_size"]


def decode(case, made, tensors, inputs):
    params = case["params"]
    z, count = inputs["z"][:, :, : params["L"]], params["num_frames"]
    with torch.inference_mode():
        pixels = torch.cat(list(made.decode(z, count, frames_at_once=params["micro_batch_size"])), dim=2)
        frames = torch.cat(list(made.decode_temporal(z * made.scale + made.shift, count)), dim=2)
    assert pixels.shape[2] == count
    check_tensors(case, tensors, {"x_z": frames, **video_values(pixels, params["frames"])})


def video_values(pixels, indices):
    statistics = pixels.transpose(1, 2).flatten(2)
    return {
        "x_frames": pixels[:, :, indices],
        "frame_mean": statistics.mean(dim=2),
        "frame_std": statistics.std(dim=2, correction=0),
    }


def forward(case, made, tensors, inputs):
    params = case["params"]
    x = inputs["x"][:, :, : params["T"]]
    made.train()
    out = made(x, noise=noise_of(inputs))
    last = out.posteriors[-1]
    loss = (out.pixels * x).mean() + (out.frame_latents * inputs["r2"]).mean() + 1e-3 * last.kl().sum()
    loss.backward()
    actual = {
        "x_z_rec": out.frame_latents,
        "z": out.latents,
        "x_z": out.encoded_frames,
        "posterior_mean": last.mean,
        "posterior_logvar": last.logvar,
        **video_values(out.pixels, params["frames"]),
    }
    check_tensors(case, tensors, actual)
    close(case, loss.detach(), case["expected_scalars"]["loss"], "loss")
    close(case, last.kl().detach(), case["expected_scalars"]["kl"], "kl")
    check_gradients(case, made)


OPERATIONS = {
    "encode_deterministic": encode,
    "encode_sampled": encode,
    "decode": decode,
    "forward_cal_loss": forward,
}


@pytest.mark.parametrize("case", cases(TOPIC, "tiny"))
def test_combined_autoencoder(case):
    params = case["params"]
    if params["op"] == "get_latent_size":
        for row in params["table"]:
            with torch.device("meta"):
                made = network_of_size(row["micro_frame_size"])
            assert list(made.get_latent_size(tuple(row["input"]))) == row["latent"]
        return
    tensors = load_tensors(TOPIC, read(TOPIC, "tiny")["tensors"])
    inputs = {name: tensors[key] for name, key in case["inputs"].items()}
    OPERATIONS[params["op"]](case, network(params["micro_frame_size"]), tensors, inputs)


CODING = ("encode_deterministic", "encode_sampled", "decode")


@pytest.mark.parametrize("case", of_operations(cases(TOPIC, "tiny"), *CODING))
def test_in_slabs(case, monkeypatch):
    monkeypatch.setattr(slabs, "SLAB_BYTES", 4000)
    params = case["params"]
    tensors = load_tensors(TOPIC, read(TOPIC, "tiny")["tensors"])
    inputs = {name: tensors[key] for name, key in case["inputs"].items()}
    made = network(params["micro_frame_size"])
    made.set_memory_mode("low")
    OPERATIONS[params["op"]](case, made, tensors, inputs)


def network_of_size(micro_frame_size: int | None) -> VideoAutoencoder:
    config = VideoAutoencoderConfig.from_mapping(read(TOPIC, "tiny")["config"])
    return VideoAutoencoder(dataclasses.replace(config, micro_frame_size=micro_frame_size))
