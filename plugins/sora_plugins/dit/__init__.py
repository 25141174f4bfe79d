"""The image-family networks: DiT."""
