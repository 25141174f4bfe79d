"""Which files are pictures and which are videos, by their names."""

from __future__ import annotations

from pathlib import PurePath

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
VIDEO_SUFFIXES = (
    *(".mp4", ".avi", ".mov", ".mkv", ".webm", ".m2ts"),
    *(".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".flv", ".gif"),
)
#: A regular expression for names of pictures, for columns of a table.
IMAGE_NAME = rf"(?i)\.(?:{'|'.join(suffix[1:] for suffix in IMAGE_SUFFIXES)})$"


def is_image(path: str | PurePath) -> bool:
    """Whether the name is that of a picture."""
    return PurePath(path).suffix.lower() in IMAGE_SUFFIXES


def is_video(path: str | PurePath) -> bool:
    """Whether the name is that of a video."""
    return PurePath(path).suffix.lower() in VIDEO_SUFFIXES
