"""Names of outputs and the rules for files that are already there."""

import json
from pathlib import Path

import numpy as np
import pytest

from sora_cli.errors import UsageError
from sora_cli.tasks.output import check_outputs, name_outputs, output_state, prepare_folders, settings_hash, slug
from sora_cli.video.io import write_image
from sora_cli.video.settings import sidecar_path


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a waterfall", "a-waterfall"),
        ("  A Waterfall, at night!  ", "a-waterfall-at-night"),
        ("../../etc/passwd", "etc-passwd"),
        ("", "video"),
        ("?!", "video"),
        ("naïve café", "naive-cafe"),  # an accent is no letter of its own
    ],
)
def test_slug(prompt: str, expected: str) -> None:
    assert slug(prompt) == expected


def test_slug_tells_prompts_apart_that_ascii_does_not() -> None:
    waterfall, sea = slug("瀑布"), slug("大海")
    assert waterfall != sea
    assert waterfall.startswith("video-")
    assert waterfall.isascii()


def test_long_slugs_are_cut_at_a_word_and_still_differ() -> None:
    first, second = (slug("word " * 30 + ending) for ending in ("a", "b"))
    assert first != second
    assert len(first) <= 60 + 7
    assert first.startswith("word-word-")
    assert "-wor-" not in first
    assert len(slug("x" * 300)) <= 60 + 7


def test_default_names() -> None:
    clips = [("a cat", 42), ("a cat", 43), ("A cat!", 42), ("a dog", 42)]
    expected = ["a-cat-42", "a-cat-43", "a-cat-42-2", "a-dog-42"]
    assert name_outputs(clips, None, is_image=False) == [Path("outputs") / f"{name}.mp4" for name in expected]
    assert name_outputs(clips[:1], None, is_image=True) == [Path("outputs/a-cat-42.png")]


def test_a_name_made_by_numbering_is_not_taken_twice() -> None:
    clips = [("a", 42), ("a", 42), ("a 42", 2)]
    assert len(set(name_outputs(clips, None, is_image=False))) == 3


def test_file_and_folder(tmp_path: Path) -> None:
    one = [("a cat", 42)]
    assert name_outputs(one, tmp_path / "x.mp4", is_image=False) == [tmp_path / "x.mp4"]
    assert name_outputs(one, tmp_path / "new", is_image=False) == [tmp_path / "new" / "a-cat-42.mp4"]
    (tmp_path / "v1.5").mkdir()
    assert name_outputs(one, tmp_path / "v1.5", is_image=False) == [tmp_path / "v1.5" / "a-cat-42.mp4"]


def test_a_number_is_no_ending_and_the_home_folder_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    one = [("a cat", 42)]
    monkeypatch.setenv("HOME", "/home/me")
    assert name_outputs(one, Path("v1.5"), is_image=False) == [Path("v1.5/a-cat-42.mp4")]
    assert name_outputs(one, Path("~/clips"), is_image=False) == [Path("/home/me/clips/a-cat-42.mp4")]
    assert name_outputs(one, Path("~/x.mp4"), is_image=False) == [Path("/home/me/x.mp4")]
    assert name_outputs(one, Path("~nobody-of-this-name/x"), is_image=False)[0].parts[0] == "~nobody-of-this-name"


@pytest.mark.parametrize(
    ("name", "num_clips", "is_image", "message"),
    [
        ("x.avi", 1, False, "videos are written as .mp4"),
        ("x.png", 1, False, "videos are written as .mp4"),
        ("x.mp4", 1, True, "a single frame is written as .png"),
        ("x.mp4", 2, False, "2 clips do not fit into the one file"),
        ("-", 1, False, "clips are not written to standard output"),
    ],
)
def test_names_that_do_not_fit(name: str, num_clips: int, is_image: bool, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        name_outputs([("a", 1)] * num_clips, Path(name), is_image=is_image)


def test_settings_hash_ignores_order_and_unset_values() -> None:
    assert settings_hash({"a": 1, "b": {"c": 2, "d": None}}) == settings_hash({"b": {"c": 2}, "a": 1, "e": None})
    assert settings_hash({"a": 1}) != settings_hash({"a": 2})


def test_output_state(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    assert output_state(path, "abc") == "new"
    write_image(path, np.zeros((8, 8, 3), np.uint8), {"settings_hash": "abc"})
    assert output_state(path, "abc") == "done"
    assert output_state(path, "other") == "other"
    sidecar_path(path).unlink()
    path.write_bytes(b"somebody's picture")
    assert output_state(path, "abc") == "other"


def test_a_sidecar_of_somebody_else_is_in_the_way(tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    sidecar_path(path).write_text(json.dumps({"mine": 1}))
    assert output_state(path, "abc") == "other"
    sidecar_path(path).write_text(json.dumps({"settings_hash": "old"}))
    assert output_state(path, "abc") == "new"


def test_check_outputs(tmp_path: Path) -> None:
    check_outputs({tmp_path / "a": "new", tmp_path / "b": "done"}, overwrite=False)
    check_outputs({tmp_path / "a": "other"}, overwrite=True)
    with pytest.raises(UsageError, match=r"already there, made with other settings: .*a, .*b"):
        check_outputs({tmp_path / "a": "other", tmp_path / "b": "other"}, overwrite=False)
    with pytest.raises(UsageError, match="a folder has the name"):
        check_outputs({tmp_path: "other"}, overwrite=True)


def test_prepare_folders(tmp_path: Path) -> None:
    prepare_folders([tmp_path / "a" / "b" / "x.mp4"])
    assert list((tmp_path / "a" / "b").iterdir()) == []
    (tmp_path / "file").write_text("")
    for place in ("file", "file/in/it"):
        with pytest.raises(UsageError, match=r"cannot write to the folder .*/file is a file, not a folder"):
            prepare_folders([tmp_path / place / "x.mp4"])
