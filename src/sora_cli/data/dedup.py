"""`sora data dedup`: videos and pictures that show the same, found by perceptual hashes.

A video has a 64-bit DCT hash of each of some frames, evenly spread over its length. Two are near duplicates when they
differ in few bits of these on average: other encodings, sizes, qualities and slight crops of one video do. Videos that
begin at different moments are different. Candidates are those that agree in 16 bits of some frame, so tables of
millions of rows need no comparison of all pairs.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sora_cli.errors import MissingError
from sora_cli.video.media import is_image

from .addresses import at_hand
from .index import STAMP
from .run import StepOptions, run_step
from .work import Made, Row, RowFunction, Work

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

HASH, DUPLICATE = "frame_hashes", "duplicate_of"
#: Frames of a video that are hashed, and the side of the pictures that hashes are made of.
FRAMES, SIDE = 5, 64
BITS, BAND_BITS = 64, 16
#: A frame whose grey levels vary less is nearly of one colour: its hash says nothing.
LEAST_DEVIATION = 3.0


def run_dedup(frame: pl.DataFrame, step: StepOptions, *, most_bits: float, keeps: bool) -> None:
    """Find near duplicates in a table, and leave out all but the best of each group. keeps: only mark them.

    most_bits: of 64 that two may differ in, on average over their frames.
    """
    work = Work("dedup", f"{__name__}:make_hasher", {"frames": FRAMES}, ("path", STAMP), {HASH: "str"}, 4, step.seconds)

    def finish(made: pl.DataFrame) -> pl.DataFrame:
        import polars as pl

        names = made["id" if "id" in made.columns else "path"].to_list()
        best = near_duplicates(made[HASH].to_list(), quality(made), most_bits)
        marked = made.with_columns(
            pl.Series(DUPLICATE, [None if one == row else names[one] for row, one in enumerate(best)], dtype=pl.String)
        )
        return marked if keeps else marked.filter(pl.col(DUPLICATE).is_null()).drop(DUPLICATE, HASH)

    run_step(frame, work, step, verb="hashing", bad="drop", finish=finish)


def quality(frame: pl.DataFrame) -> list[tuple[float, ...]]:
    """How good each row is, for a choice among duplicates: pixels, then frames; unknown counts as least."""
    columns = [name for name in ("resolution", "num_frames") if name in frame.columns]
    if not columns:
        return [()] * frame.height
    return [tuple(float(value or 0) for value in row) for row in frame.select(columns).iter_rows()]


def near_duplicates(
    hashes: Sequence[str | None], qualities: Sequence[tuple[float, ...]], most_bits: float
) -> list[int]:
    """For each row the number of the row it is a duplicate of; its own where it is none.

    The best comes first, among equals the one higher in the table; every other row is compared with those that were
    kept before it. A row without hashes has no duplicates.
    """
    order = sorted(range(len(hashes)), key=lambda row: (*(-value for value in qualities[row]), row))
    best = list(range(len(hashes)))
    kept: dict[tuple[int, int, int], list[int]] = defaultdict(list)
    signatures: dict[int, NDArray[np.uint64]] = {}
    for row in order:
        text = hashes[row]
        if not text:
            continue
        signature = np.array([int(part, 16) if part != "-" else 0 for part in text.split()], np.uint64)
        is_telling = np.array([part != "-" for part in text.split()])
        bands = _bands(signature, is_telling)
        candidates = dict.fromkeys(other for band in bands for other in kept[band])
        found = _closest(signature, [signatures[other] for other in candidates], most_bits)
        if found is not None:
            best[row] = list(candidates)[found]
            continue
        signatures[row] = signature
        for band in bands:
            kept[band].append(row)
    return best


def _bands(signature: NDArray[np.uint64], is_telling: NDArray[np.bool_]) -> list[tuple[int, int, int]]:
    """(number of frames and frame, band, its bits); a video all of whose frames are blank has one band of its own."""
    if not is_telling.any():
        return [(len(signature), -1, 0)]
    mask = (1 << BAND_BITS) - 1
    return [
        (len(signature) * FRAMES + place, band, int(value) >> band * BAND_BITS & mask)
        for place, value in enumerate(signature)
        if is_telling[place]
        for band in range(BITS // BAND_BITS)
    ]


def _closest(signature: NDArray[np.uint64], others: Sequence[NDArray[np.uint64]], most_bits: float) -> int | None:
    """Place of the closest other one within the limit."""
    if not others:
        return None
    different = np.stack(others) ^ signature
    bits = np.unpackbits(different.view(np.uint8).reshape(len(others), -1), axis=1).sum(axis=1) / len(signature)
    place = int(bits.argmin())
    return place if bits[place] <= most_bits else None


def make_hasher(options: Mapping[str, Any], device: str) -> RowFunction:
    """`Work.target`: hashes of frames as text, "-" for a frame of one colour."""
    try:
        import imagehash
    except ImportError as error:
        raise MissingError("the package imagehash is missing", hint="pip install 'sora-cli[data]'") from error
    from PIL import Image

    def text(picture: NDArray[np.uint8]) -> str:
        grey = picture.mean(axis=-1)
        return "-" if grey.std() < LEAST_DEVIATION else str(imagehash.phash(Image.fromarray(picture)))

    def work(row: Row) -> Made:
        with at_hand(row["path"]) as file:
            return hashed(file)

    def hashed(file: str) -> Made:
        if is_image(file):
            with Image.open(file) as picture:
                small = np.asarray(picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX))
            return Made([{HASH: text(small)}])
        from .analysis import analyse

        with analyse(file, lambda height, width: (SIDE, SIDE), is_rough=True) as analysis:
            frames = list(analysis.frames)
        count = options["frames"]
        chosen = [frames[(2 * i + 1) * len(frames) // (2 * count)] for i in range(count)]
        return Made([{HASH: " ".join(map(text, chosen))}])

    return lambda rows: [work(row) for row in rows]
