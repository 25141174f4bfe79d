"""The image-family networks: DiT, Latte and PixArt."""
