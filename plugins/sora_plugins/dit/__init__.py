"""The image-family networks: DiT and Latte."""
