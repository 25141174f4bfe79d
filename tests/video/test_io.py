"""Video and image files: exact frames, colours, rates, settings; complete or absent; the same bytes every time."""

import json
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sora_cli.errors import SoraError, UsageError
from sora_cli.video.io import frame_rate, open_video, write_image, write_video
from sora_cli.video.settings import find_settings, read_generate_settings, read_settings, sidecar_path
from sora_plugins.nano.scenes.catalogue import draw_params
from sora_plugins.nano.scenes.renderer import render

SETTINGS = {"settings_hash": "abc", "prompt": 'naïve ☕ "quoted"\n', "numbers": list(range(3000))}
COLOURS = np.array(
    [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 30, 90), (13, 200, 140), (128, 128, 128)],
    dtype=np.uint8,
)


def colour_pieces(num_frames: int, piece: int = 5) -> Iterator[NDArray[np.uint8]]:
    """Eight fields of flat colour, 64x128, in pieces of a few frames."""
    picture = COLOURS.reshape(2, 4, 1, 1, 3).repeat(32, 2).repeat(32, 3).transpose(0, 2, 1, 3, 4).reshape(64, 128, 3)
    for start in range(0, num_frames, piece):
        yield picture[None].repeat(min(piece, num_frames - start), 0)


def noise_pieces(num_frames: int) -> Iterator[NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    for _ in range(num_frames):
        yield rng.integers(0, 256, (1, 144, 256, 3), dtype=np.uint8)


@pytest.fixture
def folder(isolated: None) -> Path:
    """The empty working folder of the test."""
    return Path.cwd()


@pytest.mark.parametrize(("num_frames", "fps"), [(1, 24.0), (2, 8.0), (51, 24.0), (17, 23.976), (10, 12.5)])
def test_frames_and_rate_are_exact(folder: Path, num_frames: int, fps: float) -> None:
    path = folder / "clip.mp4"
    assert write_video(path, colour_pieces(num_frames), fps) == num_frames
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        assert len(frames) == num_frames == stream.frames
        assert stream.average_rate == frame_rate(fps)
        assert [frame.time for frame in frames] == pytest.approx([i / frame_rate(fps) for i in range(num_frames)])
        assert stream.start_time == 0
        assert (stream.height, stream.width, stream.codec_context.name) == (64, 128, "h264")


def test_colours_are_bt709_and_tagged_so(folder: Path) -> None:
    path = folder / "clip.mp4"
    write_video(path, colour_pieces(3), 24)
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert context.pix_fmt == "yuv420p"
        assert (context.color_primaries, context.color_trc, context.colorspace, context.color_range) == (1, 1, 1, 1)
        frame = next(container.decode(video=0))
    y, u, v = (np.frombuffer(bytes(plane), np.uint8).reshape(-1, plane.line_size) for plane in frame.planes)
    # ITU-R BT.709, table 3, in 8 bits: an independent calculation from the colours.
    rgb = COLOURS.astype(float) / 255
    luma = rgb @ (0.2126, 0.7152, 0.0722)
    wanted = np.stack(
        (16 + 219 * luma, 128 + 224 * (rgb[:, 2] - luma) / 1.8556, 128 + 224 * (rgb[:, 0] - luma) / 1.5748), 1
    )
    rows, columns = np.divmod(np.arange(8), 4)
    found = np.stack(
        [plane[(rows * 32 + 16) // scale, (columns * 32 + 16) // scale] for plane, scale in ((y, 1), (u, 2), (v, 2))], 1
    )
    # 1.5: half a level of rounding and one of quantisation; the BT.601 matrix would be off by up to 30.
    assert np.abs(found - wanted).max() <= 1.5


def test_index_is_in_front(folder: Path) -> None:
    path = folder / "clip.mp4"
    write_video(path, colour_pieces(5), 24)
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


def test_same_bytes_every_time(folder: Path) -> None:
    paths = [folder / "a.mp4", folder / "b.mp4"]
    for path in paths:
        write_video(path, noise_pieces(9), 24, SETTINGS)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_same_bytes_in_many_encodings(folder: Path) -> None:
    """With x264's macroblock tree one of some tens of encodings in a process was different, by the layout of memory."""
    frames = render(draw_params(random.Random(1), "snow"), 24, 96, 160).numpy()
    contents = set()
    for _ in range(40):
        write_video(folder / "clip.mp4", iter([frames[:10], frames[10:]]), 24.0)
        contents.add((folder / "clip.mp4").read_bytes())
    [content] = contents
    assert b" mbtree=0 " in content  # x264 writes its settings into the stream


def test_settings_are_in_the_video_and_beside_it(folder: Path) -> None:
    path = folder / "clip: 1%d.mp4"  # a name that must not be read as a protocol or a pattern
    write_video(path, colour_pieces(5), 24, SETTINGS)
    assert json.loads(sidecar_path(path).read_text(encoding="utf-8")) == SETTINGS
    with av.open(f"file:{path}") as container:  # another reader finds them too
        assert json.loads(container.metadata["comment"]) == SETTINGS
    sidecar_path(path).unlink()
    assert read_settings(path) == SETTINGS


def test_settings_only_in_the_file(folder: Path) -> None:
    """A sidecar of what was there before goes, as it says nothing about the new file."""
    video, picture = folder / "clip.mp4", folder / "picture.png"
    image = next(noise_pieces(1))
    for number, sidecar in enumerate((True, False)):
        with open_video(video, 24, {**SETTINGS, "number": number}, sidecar=sidecar) as add:
            add(image)
        write_image(picture, image[0], {**SETTINGS, "number": number}, sidecar=sidecar)
        for path in (video, picture):
            assert sidecar_path(path).exists() == sidecar
            assert read_settings(path)["number"] == number


def test_quality(folder: Path) -> None:
    sizes = []
    for crf in (0, 17, 40):
        with open_video(folder / "clip.mp4", 24, crf=crf) as add:
            for piece in noise_pieces(3):
                add(piece)
        sizes.append((folder / "clip.mp4").stat().st_size)
    assert sizes[0] > 1.5 * sizes[1] > 3 * sizes[2]


def test_settings_are_in_the_image_and_beside_it(folder: Path) -> None:
    path = folder / "picture.png"
    image = next(noise_pieces(1))[0]
    write_image(path, image, SETTINGS)
    assert json.loads(sidecar_path(path).read_text(encoding="utf-8")) == SETTINGS
    with Image.open(path) as opened:
        assert np.array_equal(np.asarray(opened), image)
        assert json.loads(opened.text["sora"]) == SETTINGS
    sidecar_path(path).unlink()
    assert read_settings(path) == SETTINGS


def test_sidecar_serves_a_file_without_settings(folder: Path) -> None:
    path = folder / "clip.mp4"
    write_video(path, colour_pieces(2), 24)
    assert find_settings(path) is None
    with pytest.raises(SoraError, match="holds no settings"):
        read_settings(path)
    sidecar_path(path).write_text(json.dumps(SETTINGS))
    assert read_settings(path) == SETTINGS
    assert read_settings(sidecar_path(path)) == SETTINGS


@pytest.mark.parametrize(
    "content", [b"", b"\x00", b"not a video at all", b"\x89PNG\r\n\x1a\n\x00\x00", b"\0\0\0\x08ftyp\0\0\0\x01moov"]
)
def test_damaged_files_hold_no_settings(folder: Path, content: bytes) -> None:
    for name in ("x.mp4", "x.png", "x.mp4.json"):
        (folder / name).write_bytes(content)
        assert find_settings(folder / name) is None


def test_no_file(folder: Path) -> None:
    with pytest.raises(UsageError, match="no file"):
        read_settings(folder / "absent.mp4")


def test_settings_to_start_from(folder: Path) -> None:
    path = folder / "x.mp4.json"
    path.write_text('{"settings_hash": "1", "config": {"sampling": {"steps": 3}}}')
    assert read_generate_settings(path) == {"sampling": {"steps": 3}}
    for content in ('{"settings_hash": "1"}', '{"settings_hash": "1", "config": [1]}'):
        path.write_text(content)
        with pytest.raises(UsageError, match="was not made by `sora generate`"):
            read_generate_settings(path)


@pytest.mark.parametrize("fps", [0.001, 240.0])
def test_the_slowest_and_the_fastest_rate(folder: Path, fps: float) -> None:
    path = folder / "x.mp4"
    write_video(path, noise_pieces(2), fps)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert float(stream.average_rate or 0) == fps
        assert [frame.time for frame in container.decode(stream)][1] == pytest.approx(1 / fps)


@pytest.mark.parametrize(
    ("fps", "rate"),
    [
        (24.0, Fraction(24)),
        (23.976, Fraction(24000, 1001)),
        (29.97, Fraction(30000, 1001)),
        (12.5, Fraction(25, 2)),
        (0.004, Fraction(1, 250)),
        (0.0001, Fraction(1, 1000)),
    ],
)
def test_frame_rate(fps: float, rate: Fraction) -> None:
    assert frame_rate(fps) == rate


def test_an_error_while_decoding_leaves_nothing(folder: Path) -> None:
    path = folder / "clip.mp4"

    def failing() -> Iterator[NDArray[np.uint8]]:
        yield from noise_pieces(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(path, failing(), 24, SETTINGS)
    assert list(folder.iterdir()) == []


def test_an_old_file_survives_a_failed_rewrite(folder: Path) -> None:
    path = folder / "clip.mp4"
    write_video(path, colour_pieces(2), 24, SETTINGS)
    before = path.read_bytes()

    def failing() -> Iterator[NDArray[np.uint8]]:
        yield from noise_pieces(1)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_video(path, failing(), 24, SETTINGS)
    assert path.read_bytes() == before
    assert sorted(entry.name for entry in folder.iterdir()) == ["clip.mp4", "clip.mp4.json"]


def test_absent_folder(folder: Path) -> None:
    with pytest.raises(SoraError, match=r"cannot write .*No such file"):
        write_video(folder / "absent" / "clip.mp4", colour_pieces(2), 24)


FULL_DISK = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_io
from sora_cli.errors import SoraError
try:
    if sys.argv[2].endswith(".png"):
        test_io.write_image(Path(sys.argv[2]), next(test_io.noise_pieces(1))[0], test_io.SETTINGS)
    else:
        test_io.write_video(Path(sys.argv[2]), test_io.noise_pieces(20), 24, test_io.SETTINGS)
except SoraError as error:
    print(error)
"""


@pytest.mark.parametrize("name", ["clip.mp4", "picture.png"])
def test_full_disk(folder: Path, name: str) -> None:
    # A limit on file sizes is how a full disk looks to a process that may not fill one.
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    path = folder / name
    script = [sys.executable, "-c", FULL_DISK, str(Path(__file__).parent), str(path)]
    done = subprocess.run(script, preexec_fn=limit, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"no space left to write {path}"
    assert list(folder.iterdir()) == []
