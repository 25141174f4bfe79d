"""Discriminators of videos: PatchGAN over frames or clips, StyleGAN over clips."""

from __future__ import annotations

from sora_cli.plugin.hooks import hookimpl
from sora_cli.plugin.specs import DiscriminatorSpec


@hookimpl
def sora_discriminators() -> list[DiscriminatorSpec]:
    """Three networks that a video autoencoder can be trained against."""
    return [
        DiscriminatorSpec(
            name="patch-2d",
            summary="PatchGAN: judges overlapping patches of single frames",
            target="sora_plugins.discriminators.patch:build_2d",
            options="sora_plugins.discriminators.config:PatchOptions",
            takes="frames",
        ),
        DiscriminatorSpec(
            name="patch-3d",
            summary="PatchGAN in space and time: judges overlapping blocks of a clip",
            target="sora_plugins.discriminators.patch:build_3d",
            options="sora_plugins.discriminators.config:PatchOptions",
            takes="clips",
        ),
        DiscriminatorSpec(
            name="stylegan-3d",
            summary="StyleGAN's discriminator in space and time, blurred before halving: judges a clip as a whole",
            target="sora_plugins.discriminators.stylegan:build",
            options="sora_plugins.discriminators.config:StyleOptions",
            takes="clips",
            has_fixed_size=True,
        ),
    ]
