"""Discriminators of videos: PatchGAN over frames and clips, StyleGAN over clips."""
