"""Sizes of nano's diffusion model; the network is `model.py`."""

from __future__ import annotations

MODEL_CONFIG = {
    "in_channels": 32,
    "patch_size": (1, 2, 2),
    "hidden_size": 256,
    "depth": 4,
    "num_heads": 4,
    "caption_channels": 128,
    "model_max_length": 64,
    "input_sq_size": 192,
    "class_dropout_prob": 0.0,
    "pred_sigma": False,
}
