"""DiT: transformer blocks over all tokens of a picture or clip, modulated by a class or one vector of text.

Peebles and Xie 2022. x (B, C, T, H, W) is cut into patches; features stay (B, T, S, D) as in the STDiT family.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sora_plugins.stdit.layers import CaptionEmbedder, Mlp, PatchEmbed, ScalarEmbedder, SelfAttention, modulate

from .config import DiTConfig
from .layers import (
    WITHIN_FRAMES,
    Blocks,
    frame_table,
    initialize_linear,
    plane_table,
    refuse_given_frames,
    token_grid,
    unpatchify,
)


class LabelEmbedder(nn.Module):
    """A vector for each class, and with dropout one more for "no class", whose number is that of the classes."""

    def __init__(self, num_classes: int, dim: int, *, drop_probability: float) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.drop_probability = drop_probability
        self.has_null = drop_probability > 0
        self.embedding_table = nn.Embedding(num_classes + self.has_null, dim)

    def check(self, labels: Tensor) -> None:
        """Raise ValueError unless these are numbers of classes."""
        rows = len(self.embedding_table.weight)
        if labels.dtype in (torch.float16, torch.bfloat16):
            raise ValueError(f"class numbers are rounded in {labels.dtype}; give whole numbers")
        wrong = (labels < 0) | (labels >= rows) | (labels != labels.floor())
        if wrong.any():
            raise ValueError(f"{labels[wrong][0].item()} is no class: there are 0 to {self.num_classes - 1}")

    def draw_drop_ids(self, batch: int) -> Tensor | None:
        """Which labels of a training batch to drop, (batch,), 1 with the drop probability; None when none can be."""
        if not self.training or self.drop_probability == 0:
            return None
        return (torch.rand(batch, device=self.embedding_table.weight.device) < self.drop_probability).long()

    def forward(self, labels: Tensor, drop_ids: Tensor | None = None) -> Tensor:
        """labels (B,) whole numbers -> (B, D)."""
        if drop_ids is not None:
            labels = torch.where(drop_ids == 1, self.num_classes, labels)
        return self.embedding_table(labels)


def modulation(dim: int, count: int) -> nn.Sequential:
    """From the condition (B, D) to `count` vectors in one, (B, count * D)."""
    return nn.Sequential(nn.SiLU(), nn.Linear(dim, count * dim))


class DiTBlock(nn.Module):
    """Self attention and MLP, both modulated and gated by the condition."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        dim = config.hidden_size
        self.attn = SelfAttention(dim, config.num_heads, qk_norm=False)
        self.mlp = Mlp(dim, int(dim * config.mlp_ratio))
        self.adaLN_modulation = modulation(dim, 6)

    def forward(self, x: Tensor, c: Tensor, axis: int = WITHIN_FRAMES) -> Tensor:
        """x (B, T, S, D), c (B, D) -> as x. axis: that attention runs along."""
        rows = self.adaLN_modulation(c)[:, None, None]
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = rows.chunk(6, dim=-1)
        x = torch.addcmul(x, gate_a, self.attn(modulate(x, shift_a, scale_a), axis))
        return torch.addcmul(x, gate_m, self.mlp(modulate(x, shift_m, scale_m)))


class DiTFinalLayer(nn.Module):
    """Modulated norm and linear layer to the output channels of each patch."""

    def __init__(self, dim: int, out_features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, out_features)
        self.adaLN_modulation = modulation(dim, 2)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """x (B, T, S, D), c (B, D) -> (B, T, S, out)."""
        shift, scale = self.adaLN_modulation(c)[:, None, None].chunk(2, dim=-1)
        return self.linear(modulate(x, shift, scale))


class DiT(nn.Module):
    """The network; see `forward`."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.hidden_size
        self.out_channels = config.in_channels * (2 if config.learn_sigma else 1)
        self.x_embedder = PatchEmbed(config.patch_size, config.in_channels, dim)
        self.t_embedder = ScalarEmbedder(dim)
        self.y_embedder: LabelEmbedder | CaptionEmbedder
        if config.num_classes is not None:
            self.y_embedder = LabelEmbedder(config.num_classes, dim, drop_probability=config.class_dropout_prob)
        else:
            self.y_embedder = CaptionEmbedder(
                config.caption_channels, dim, max_tokens=1, drop_probability=config.class_dropout_prob
            )
        self.blocks = Blocks(DiTBlock(config) for _ in range(config.depth))
        self.final_layer = DiTFinalLayer(dim, math.prod(config.patch_size) * self.out_channels)
        self.initialize()

    def initialize(self) -> None:
        """Initial weights of the original: blocks start as the identity, the output as zero."""
        initialize_linear(self)
        nn.init.normal_(self.t_embedder.get_parameter("mlp.0.weight"), std=0.02)
        nn.init.normal_(self.t_embedder.get_parameter("mlp.2.weight"), std=0.02)
        if isinstance(self.y_embedder, LabelEmbedder):
            nn.init.normal_(self.y_embedder.embedding_table.weight, std=0.02)
        else:
            nn.init.normal_(self.y_embedder.y_proj.fc1.weight, std=0.02)
            nn.init.normal_(self.y_embedder.y_proj.fc2.weight, std=0.02)
        for module in (*self.blocks, self.final_layer):
            nn.init.zeros_(module.get_parameter("adaLN_modulation.1.weight"))
        nn.init.zeros_(self.final_layer.linear.weight)

    def null_text(self, num_prompts: int, length: int) -> Tensor:
        """The condition that stands for none, (num_prompts, 1, 1, 1) class numbers or (num_prompts, 1, 1, C_text).

        length: of the prompts, which is always 1 here. Raises ValueError for a network trained without such a class.
        """
        embedder = self.y_embedder
        if isinstance(embedder, CaptionEmbedder):
            return embedder.y_embedding[None, None].expand(num_prompts, -1, -1, -1)
        if not embedder.has_null:
            raise ValueError('this network was trained without a class for "no class": it runs without guidance')
        device = embedder.embedding_table.weight.device
        return torch.full((num_prompts, 1, 1, 1), embedder.num_classes, device=device)

    def encode_text(self, y: Tensor, mask: Tensor | None = None) -> Tensor:
        """The condition for many calls: its vectors (B, D). y: as in `forward`; mask is not used.

        Raises ValueError for class numbers that there are not.
        """
        if isinstance(self.y_embedder, LabelEmbedder):
            self.y_embedder.check(y)
        return self.condition_vectors(y)

    def condition_vectors(self, y: Tensor, drop_ids: Tensor | None = None) -> Tensor:
        """y as in `forward` -> (B, D)."""
        if isinstance(self.y_embedder, LabelEmbedder):
            return self.y_embedder(y.reshape(len(y)).long(), drop_ids)
        return self.y_embedder(y.to(self.x_embedder.proj.weight.dtype), drop_ids).flatten(1)

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        y: Tensor,
        mask: Tensor | None = None,
        x_mask: Tensor | None = None,
        *,
        drop_ids: Tensor | None = None,
        height: Tensor | None = None,
        width: Tensor | None = None,
        num_frames: Tensor | None = None,
        fps: Tensor | None = None,
        ar: Tensor | None = None,
    ) -> Tensor:
        """Predict the noise, and with `learn_sigma` where its variance lies between the bounds.

        x: (B, C, T, H, W) noisy latents in whole patches. timestep: (B,) in 0 .. 1000. y: class numbers, (B,) or
        (B, 1, 1, 1), or vectors of text (B, 1, 1, C_text), or what `encode_text` made of them, (B, D). drop_ids: (B,),
        1 takes the condition away; when it is not given, a network in training draws it. The rest is accepted and not
        used, but frames cannot be given (x_mask). Returns (B, C or 2C, T, H, W) in float32.
        """
        refuse_given_frames(x_mask)
        grid = token_grid(x.shape[2:], self.config.patch_size)
        if y.dim() != 2:
            y = self.condition_vectors(y, self.y_embedder.draw_drop_ids(len(y)) if drop_ids is None else drop_ids)
        c = self.t_embedder(timestep) + y
        # The tokens have no name here, so that the blocks need not keep them.
        return unpatchify(self.final_layer(self.transform(self.embed(x, grid), c), c), grid, self.config.patch_size)

    def embed(self, x: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """Tokens (B, T, S, D) of latents, with their positions in the frame."""
        dtype = self.x_embedder.proj.weight.dtype
        table = plane_table(self.config.hidden_size, *grid[1:], device=x.device)
        return self.x_embedder(x.to(dtype)) + table.to(dtype)

    def transform(self, tokens: Tensor, c: Tensor) -> Tensor:
        """All blocks on (B, T, S, D): every token attends to those of all frames."""
        batch, frames, positions, width = tokens.shape
        if not self.config.no_temporal_pos_emb:
            tokens = tokens + self.frame_positions(tokens)
        tokens = tokens.reshape(batch, 1, frames * positions, width)
        for block in self.blocks:
            tokens = block(tokens, c)
        return tokens

    def frame_positions(self, tokens: Tensor) -> Tensor:
        """Positions in time for tokens (B, T, S, D), (T, 1, D)."""
        table = frame_table(tokens.shape[-1], tokens.shape[1], device=tokens.device)
        return table.to(tokens.dtype)[:, None]


def build(config: Mapping[str, Any], options: object = None) -> DiT:
    """A DiT from the fields of a config.json; used as the target of model specs, which have no options."""
    return DiT(DiTConfig.from_mapping(config))
