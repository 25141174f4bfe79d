"""Pictures of every kind as they are meant to be seen, and what is refused."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from media import greys, save_video, turn
from PIL import Image, features

from sora_cli.training.clip_reader import BadClipError
from sora_cli.video.pictures import Animation, UnreadableError, check_content, open_pixels

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
COLOURS = (RED, GREEN, BLUE)


def read(path: Path, *, first_only: bool = False) -> np.ndarray:
    """A still picture (H, W, 3)."""
    with open_pixels(path, first_only=first_only) as pixels:
        assert isinstance(pixels, torch.Tensor)
        return pixels.permute(1, 2, 0).numpy()


def halves(mode: str = "RGB") -> Image.Image:
    """48x32, the left half red, the right half blue."""
    picture = Image.new("RGB", (48, 32), BLUE)
    picture.paste(RED, (0, 0, 24, 32))
    return picture.convert(mode)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(orientation: int) -> None:
    """Whatever the camera wrote, the picture that was seen comes out."""
    seen = Image.fromarray(np.random.default_rng(0).integers(0, 255, (4, 6, 3), np.uint8))
    undo = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
            5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_270}  # fmt: skip
    stored = seen.transpose(undo[orientation]) if orientation in undo else seen
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save("a.png", exif=exif)
    assert (read(Path("a.png")) == np.asarray(seen)).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "LA", "RGBA", "PA"])
def test_modes(mode: str) -> None:
    suffix = {"CMYK": "tif", "YCbCr": "tif"}.get(mode, "png")
    picture = halves("L" if mode == "1" else "RGBA" if mode == "PA" else "RGB").convert("P" if mode == "PA" else mode)
    picture.save(f"a.{suffix}")
    pixels = read(Path(f"a.{suffix}"))
    assert pixels.shape == (32, 48, 3)
    wanted = np.asarray(picture.convert("RGB"), int)
    assert np.abs(pixels - wanted).max() <= 1


def test_transparency_is_on_white() -> None:
    picture = halves("RGBA")
    picture.putalpha(Image.fromarray(np.repeat(np.array([[255] * 24 + [0] * 24], np.uint8), 32, 0)))
    picture.save("a.png")
    pixels = read(Path("a.png"))
    assert tuple(pixels[0, 0]) == RED
    assert tuple(pixels[0, 47]) == WHITE
    half = Image.new("RGBA", (8, 8), (0, 0, 0, 128))
    half.save("half.webp", lossless=True)
    assert tuple(read(Path("half.webp"))[0, 0]) == (127, 127, 127)
    indexed = Image.new("P", (8, 8), 1)
    indexed.putpalette([0, 0, 0, 255, 0, 0])
    indexed.save("indexed.gif", transparency=1)
    assert tuple(read(Path("indexed.gif"))[0, 0]) == WHITE
    Image.new("RGB", (8, 8), RED).save("key.png", transparency=RED)
    assert tuple(read(Path("key.png"))[0, 0]) == WHITE


def test_sixteen_bits() -> None:
    """They are scaled, not cut off at 255."""
    deep = np.array([[0, 257, 32768, 65535]], np.uint16)
    Image.fromarray(deep).save("a.png")
    Image.fromarray(deep).save("a.tif")
    Path("a.pgm").write_bytes(b"P5 4 1 65535\n" + deep.byteswap().tobytes())
    for suffix in ("png", "tif", "pgm"):
        assert read(Path(f"a.{suffix}"))[0, :, 0].tolist() == [0, 1, 128, 255], suffix
    row = b"\0" + np.array([65535, 32768, 0], ">u2").tobytes()
    chunks = [(b"IHDR", struct.pack(">2I5B", 1, 1, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(row)), (b"IEND", b"")]
    Path("rgb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks))
    assert read(Path("rgb.png"))[0, 0].tolist() == [255, 128, 0]
    Image.fromarray(deep.astype(np.float32)).save("float.tif")
    with pytest.raises(BadClipError, match="32-bit numbers"):
        read(Path("float.tif"))


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "avif"])
def test_animations(suffix: str) -> None:
    if suffix == "avif" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    path = Path(f"a.{suffix}")
    pictures = [Image.new("RGB", (16, 16), colour) for colour in COLOURS]
    lossless = {"webp": {"lossless": True}, "avif": {"quality": 100}}.get(suffix, {})
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=[100, 300, 200], **lossless)
    assert np.abs(read(path, first_only=True)[0, 0] - np.array(RED, int)).max() < 8, "one picture is the first"
    with open_pixels(path) as video:
        assert isinstance(video, Animation)
        assert video.seconds() == pytest.approx([0, 0.1, 0.4])
        assert (video.num_frames, video.end, video.fps) == (3, pytest.approx(0.6), pytest.approx(5))
        for _ in range(2):  # also backwards
            found = video.frames([0, 0, 2])[:, :, 0, 0].tolist()
            assert np.abs(np.array(found) - [RED, RED, BLUE]).max() < 8


def test_short_frames_of_animations_are_a_tenth_of_a_second() -> None:
    pictures = [Image.new("RGB", (16, 16), colour) for colour in COLOURS]
    pictures[0].save("a.gif", save_all=True, append_images=pictures[1:], duration=0)
    with open_pixels(Path("a.gif")) as video:
        assert video.seconds() == pytest.approx([0, 0.1, 0.2])


def test_pages_are_no_animation() -> None:
    pictures = [Image.new("RGB", (16, 16), colour) for colour in COLOURS]
    pictures[0].save("a.tif", save_all=True, append_images=pictures[1:])
    pictures[0].save("a.mpo", save_all=True, append_images=pictures[1:])
    for name in ("a.tif", "a.mpo"):
        assert read(Path(name)).shape == (16, 16, 3)


def test_content_says_what_a_file_is() -> None:
    halves().save("a.png")
    Path("a.png").rename("picture.mp4")
    assert tuple(read(Path("picture.mp4"))[0, 0]) == RED
    assert check_content(Path("picture.mp4")) == ".png"
    save_video(Path("a.mp4"), greys(3))
    Path("a.mp4").rename("video.png")
    assert check_content(Path("video.png")) == ".mp4"
    with open_pixels(Path("video.png")) as video:
        assert video.num_frames == 3


def test_videos_are_upright() -> None:
    save_video(Path("a.mp4"), [np.asarray(halves())])
    turn(Path("a.mp4"), 1)
    with open_pixels(Path("a.mp4")) as video:
        frame = video.frames([0])[0]
    assert frame.shape == (3, 48, 32)
    assert frame[0, 10, 16] > 200, "clockwise, the left half is on top"
    assert frame[2, 40, 16] > 200


def test_ten_bits() -> None:
    save_video(Path("a.mp4"), greys(2), pix_fmt="yuv420p10le")
    with open_pixels(Path("a.mp4")) as video:
        frames = video.frames([0, 1]).float()
    assert frames[:, :, 4:-4, 4:-4].mean(dim=(1, 2, 3)).tolist() == pytest.approx([10, 20], abs=3)


def bomb() -> bytes:
    """A small PNG of 30000x30000 pixels."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        png_chunk(*chunk)
        for chunk in (
            (b"IHDR", struct.pack(">2I5B", 30000, 30000, 8, 2, 0, 0, 0)),
            (b"IDAT", zlib.compress(bytes(100))),
            (b"IEND", b""),
        )
    )


def heif(brand: bytes) -> bytes:
    return struct.pack(">I", 24) + b"ftyp" + brand + bytes(4) + b"mif1" + brand + bytes(100)


def cut_png() -> bytes:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    noise.save("whole.png")
    return Path("whole.png").read_bytes()[:6000]


def silent_sound() -> bytes:
    save_video(Path("both.mp4"), greys(1), sound=True)
    with av.open("both.mp4") as source, av.open("sound.mp4", "w") as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    return Path("sound.mp4").read_bytes()


def no_frames() -> bytes:
    """A video track that has no samples."""
    save_video(Path("whole.mp4"), greys(1))
    data = bytearray(Path("whole.mp4").read_bytes())
    for box, counts in ((b"stsz", 8), (b"stco", 4), (b"stsc", 4), (b"stts", 4)):
        start = data.index(box) + 4 + counts
        data[start : start + 4] = bytes(4)
    return bytes(data)


BAD = [
    (lambda: b"", "it is empty"),
    (lambda: bytes(range(256)), "neither a picture nor a video"),
    (lambda: b" \n<!DOCTYPE html><html>not found</html>", "it is a web page"),
    (lambda: b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\na.mp4\n#EXT-X-ENDLIST\n", "neither a picture nor a video"),
    (lambda: b"ffconcat version 1.0\nfile a.mp4\n", "neither a picture nor a video"),
    (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "neither a picture nor a video"),
    (cut_png, "cannot be decoded"),
    (bomb, "more than 178 million pixels"),
    (lambda: heif(b"heic"), "it is a HEIC picture that cannot be read here, save it as JPEG or PNG"),
    (silent_sound, "there is no video in it"),
    (no_frames, "no frames"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_what_is_refused(make, message: str) -> None:
    save_video(Path("a.mp4"), greys(2))  # what playlists name is there
    path = Path("given")
    path.write_bytes(make())
    with pytest.raises(UnreadableError, match=message):
        check_content(path)
