"""Pictures and animations as they are meant to be seen: upright, in 8 bits of red, green and blue, on white.

What a file is, its content says and not its name. Nothing here imports torch before pixels are asked for.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sora_cli.errors import SoraError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from sora_cli.training.clip_reader import Video

#: What transparent pixels are put on, as most programs show them.
BACKGROUND = (255, 255, 255)
#: Of Pillow, and the ending of each. Others are left out: some that Pillow knows run programs or are not pixels.
FORMATS = {
    "AVIF": ".avif",
    "BMP": ".bmp",
    "GIF": ".gif",
    "JPEG": ".jpg",
    "JPEG2000": ".jp2",
    "MPO": ".jpg",  # JPEG of some cameras: the first picture counts
    "PNG": ".png",
    "PPM": ".ppm",
    "TIFF": ".tif",
    "WEBP": ".webp",
}
#: The others that can have several pictures (MPO, TIFF) have views or pages, and no times.
ANIMATED = ("AVIF", "GIF", "PNG", "WEBP")
#: Of a picture or a frame of a video; Pillow refuses pictures beyond it by itself.
MAX_PIXELS = 178_956_970
#: Of FFmpeg: files that hold their frames themselves. A playlist would make it open what the file names.
CONTAINERS = {
    "asf": ".wmv",
    "avi": ".avi",
    "flv": ".flv",
    "ivf": ".ivf",
    "matroska,webm": ".mkv",
    "mov,mp4,m4a,3gp,3g2,mj2": ".mp4",
    "mpeg": ".mpg",
    "mpegts": ".ts",
    "ogg": ".ogv",
    "yuv4mpegpipe": ".y4m",
}
#: Seconds of a frame that says less than a hundredth: so browsers show them.
SHORTEST, INSTEAD = 0.011, 0.1
#: By the brand of the file.
UNSUPPORTED = {
    **dict.fromkeys(("avif", "avis"), "AVIF"),
    **dict.fromkeys(("heic", "heix", "hevc", "hevx", "heim", "heis"), "HEIC"),
    **dict.fromkeys(("mif1", "msf1"), "HEIF"),
}
NEITHER = "it is neither a picture nor a video that can be read"


class UnreadableError(Exception):
    """A file that is no picture or video, or a damaged one. The text says what is wrong with it."""


def open_picture(path: Path) -> Image | None:
    """The opened picture or animation; None for a file that is something else. Raises UnreadableError."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            # Pillow warns from half the size on that it refuses.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            Image.init()
            return Image.open(path, formats=[name for name in FORMATS if name in Image.OPEN])
    except UnidentifiedImageError:
        _check_known(path)
        return None
    except Image.DecompressionBombError as error:
        raise UnreadableError(f"it has more than {MAX_PIXELS // 10**6} million pixels, make it smaller") from error
    except Exception as error:  # Pillow's readers raise almost anything for damaged files
        raise UnreadableError(f"it cannot be decoded: {error}") from error


def _check_known(path: Path) -> None:
    """Raise UnreadableError for files of which more can be said than that they cannot be read."""
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        raise UnreadableError("it is empty")
    if start.lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise UnreadableError("it is a web page (HTML), not a picture or a video")
    kind = UNSUPPORTED.get(start[8:12].decode("latin-1")) if start[4:8] == b"ftyp" else None
    if kind:
        raise UnreadableError(f"it is a {kind} picture that cannot be read here, save it as JPEG or PNG")


def to_rgb(picture: Image) -> Image:
    """The pixels of an opened picture: upright, 8-bit RGB, on white. Raises UnreadableError."""
    import numpy as np
    from PIL import Image, ImageOps

    try:
        upright = ImageOps.exif_transpose(picture)
        if upright.mode == "I" or upright.mode.startswith("I;16"):
            deep = np.asarray(upright)
            if deep.min() < 0 or deep.max() > 65535:
                raise UnreadableError("its pixels are 32-bit numbers, save it with 8 or 16 bits")
            return Image.fromarray(np.round(deep / 257).astype(np.uint8)).convert("RGB")
        if upright.mode == "F":
            raise UnreadableError("its pixels are 32-bit numbers, save it with 8 or 16 bits")
        if upright.has_transparency_data:
            canvas = Image.new("RGBA", upright.size, BACKGROUND)
            canvas.alpha_composite(upright.convert("RGBA"))
            upright = canvas
        return upright.convert("RGB")
    except UnreadableError:
        raise
    except Exception as error:  # as above
        raise UnreadableError(f"it cannot be decoded: {error}") from error


class Animation:
    """The frames of an opened animation, as the protocol `Video`. end: seconds at which the last frame is over."""

    def __init__(self, picture: Any) -> None:
        """Reads all frames once, for their times. Raises UnreadableError."""
        self.picture = picture
        # An APNG may start with a picture for programs that show no animations.
        self._first = 1 if getattr(picture, "default_image", False) else 0
        self._starts, self.end = [], 0.0
        try:
            for number in range(self._first, self.picture.n_frames):
                self.picture.seek(number)
                self.picture.load()  # WebP knows the time only then
                self._starts.append(self.end)
                seconds = float(self.picture.info.get("duration") or 0) / 1000
                self.end += seconds if seconds >= SHORTEST else INSTEAD
        except Exception as error:  # as above
            raise UnreadableError(f"it cannot be decoded: {error}") from error
        self.num_frames, self.fps = len(self._starts), len(self._starts) / self.end

    def frames(self, numbers: Sequence[int]) -> Tensor:
        """As the protocol."""
        import torch

        return torch.stack(list(self.stream(numbers)))

    def stream(self, numbers: Sequence[int]) -> Iterator[Tensor]:
        """As the protocol."""
        from sora_cli.training.clip_reader import BROKEN, BadClipError

        for number in numbers:
            try:
                self.picture.seek(self._first + number)
                pixels = _pixels(self.picture)
            except Exception as error:  # as above
                raise BadClipError(BROKEN, str(error)) from error
            yield pixels

    def seconds(self) -> list[float]:
        """As the protocol."""
        return self._starts


def _pixels(picture: Image) -> Tensor:
    """(3, H, W) uint8."""
    import numpy as np
    import torch

    return torch.from_numpy(np.array(to_rgb(picture))).permute(2, 0, 1)


def is_still(path: Path) -> bool:
    """Whether a file is a picture that does not move. Raises SoraError."""
    try:
        picture = open_picture(path)
    except UnreadableError as error:
        raise SoraError(f"{path}: {error}", hint="give a picture or a video that can be played") from error
    if picture is None:
        return False
    with picture:
        return not _moves(picture)


def _moves(picture: Image) -> bool:
    return picture.format in ANIMATED and getattr(picture, "n_frames", 1) > 1


@contextlib.contextmanager
def open_pixels(path: Path, *, first_only: bool = False) -> Iterator[Tensor | Video]:
    """A still picture (3, H, W) uint8, or an opened video or animation. first_only: an animation is a still picture.

    Raises BadClipError.
    """
    from sora_cli.training.clip_reader import READERS, BadClipError

    try:
        picture = open_picture(path)
        if picture is None:
            with READERS["pyav"](path) as video:
                yield video
            return
        with picture:
            yield Animation(picture) if _moves(picture) and not first_only else _pixels(picture)
    except UnreadableError as error:
        raise BadClipError(str(error)) from error


def check_content(path: Path) -> str:
    """The ending that fits a picture or video, which is opened: a picture is read whole, of a video the first frame.

    For files from elsewhere, whose content may do harm: files that make FFmpeg open other ones are refused. Raises
    UnreadableError.
    """
    picture = open_picture(path)
    if picture is None:
        return _check_video(path)
    with picture:
        to_rgb(picture)
        return FORMATS[str(picture.format)]


def _check_video(path: Path) -> str:
    import av

    safe = {"format_whitelist": ",".join(CONTAINERS), "protocol_whitelist": "file"}
    try:
        with av.open(f"file:{path}", options=safe) as container:
            if container.format.name not in CONTAINERS:
                raise UnreadableError(NEITHER)
            if not container.streams.video:
                raise UnreadableError("there is no video in it")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise UnreadableError("there is no decoder for it")
            if stream.width * stream.height > MAX_PIXELS:
                raise UnreadableError(f"its frames have {stream.width}x{stream.height} pixels, make them smaller")
            if next(container.decode(stream), None) is None:
                raise UnreadableError("it has no frames")
            return CONTAINERS[container.format.name]
    except (av.error.FFmpegError, OSError) as error:
        raise UnreadableError(NEITHER) from error
