"""Pictures that show comparisons: maps of differences, panels with labels side by side, sheets of frames."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sora_cli.text.chat import printable

#: An RGB picture (H, W, 3) or frames (T, H, W, 3), uint8.
Pixels = NDArray[np.uint8]
#: The mean difference of the colours, of 255, that is shown as white; smaller ones show compression and rounding.
WHITE_AT = 64
#: Colours of no difference, and of each further quarter of `WHITE_AT`.
COLOURS = ((0, 0, 0), (90, 0, 130), (220, 40, 60), (255, 190, 40), (255, 255, 255))
LABEL_HEIGHT = 24
FONT_SIZE = 14
#: Between the pictures of a sheet, and the longest side of one.
GAP, THUMBNAIL = 4, 320


def difference_map(reference: Pixels, video: Pixels) -> Pixels:
    """Frames that show where two videos (T, H, W, 3) differ: black, violet, red, yellow, white from `WHITE_AT` on."""
    difference = np.abs(reference.astype(np.int16) - video.astype(np.int16)).mean(axis=-1)
    stops = np.linspace(0, WHITE_AT, len(COLOURS))
    levels = np.arange(256)
    table = np.stack([np.interp(levels, stops, channel) for channel in zip(*COLOURS, strict=True)], axis=-1)
    shown: Pixels = table.round().astype(np.uint8)[difference.round().astype(np.uint8)]
    return shown


def label(text: str, width: int) -> Pixels:
    """A dark strip (LABEL_HEIGHT, width, 3) with a text, whose end is left out where there is no room for it.

    The font has ASCII alone: letters lose their accents, and others are shown as boxes.
    """
    from PIL import Image, ImageDraw, ImageFont

    strip = Image.new("RGB", (width, LABEL_HEIGHT), (24, 24, 24))
    draw, font = ImageDraw.Draw(strip), ImageFont.load_default(FONT_SIZE)
    plain = unicodedata.normalize("NFKD", printable(text))
    shown = "".join(letter for letter in plain if not unicodedata.combining(letter))
    while shown and draw.textlength(shown, font) > width - 2 * GAP:
        shown = shown[:-1]
    draw.text((GAP, LABEL_HEIGHT // 2), shown, (235, 235, 235), font, anchor="lm")
    return np.asarray(strip)


def side_by_side(panels: Sequence[Pixels], labels: Sequence[Pixels]) -> Pixels:
    """Frames (T, H, W, 3) of one size beside each other, under their labels."""
    under = [
        np.concatenate([np.broadcast_to(strip, (len(panel), *strip.shape)), panel], axis=1)
        for panel, strip in zip(panels, labels, strict=True)
    ]
    return np.concatenate(under, axis=2)


def even(frames: Pixels) -> Pixels:
    """The frames with a black row or column more where a side is odd, which videos cannot have."""
    height, width = frames.shape[-3:-1]
    return np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))


def thumbnail(picture: Pixels) -> Pixels:
    """The picture with its longer side at most `THUMBNAIL`."""
    from PIL import Image

    image = Image.fromarray(picture)
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    return np.asarray(image)


def sheet(columns: Sequence[str], rows: Sequence[tuple[str, Sequence[Pixels]]]) -> Pixels:
    """A picture of rows of pictures of one size, each row under its label, and each column under its title."""
    width = rows[0][1][0].shape[1] + GAP
    lines = [np.concatenate([label(title, width) for title in columns], axis=1)]
    for text, pictures in rows:
        line = np.concatenate([np.pad(picture, ((0, GAP), (0, GAP), (0, 0))) for picture in pictures], axis=1)
        lines += [label(text, line.shape[1]), line]
    return np.concatenate(lines, axis=0)
