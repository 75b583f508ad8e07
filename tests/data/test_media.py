from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from fuseline.data.media import container_of, embedded_bytes, find_file, kind_of_bytes, kind_of_ending


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_real_pictures_are_known_by_their_bytes(form: str) -> None:
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, form)
    assert kind_of_bytes(out.getvalue()[:256]) == "image"
    text = base64.b64encode(out.getvalue()).decode()
    assert embedded_bytes(text) == out.getvalue()
    assert embedded_bytes("data:image/x;base64," + text) == out.getvalue()


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
def test_real_sounds_are_known_by_their_bytes(form: str) -> None:
    out = io.BytesIO()
    soundfile.write(out, np.zeros(8000, np.float32), 8000, format=form)
    assert kind_of_bytes(out.getvalue()[:256]) == "audio"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"plain text",
        b"RIFF0000XXXX",
        b"\0\0\0\x18ftypM4A ",
        b"\0\0\0\x18ftypheic",
        bytes(200),
        b"<html>",
        b"\xff\xfe\x00a",
    ],
)
def test_other_bytes_are_neither(data: bytes) -> None:
    assert kind_of_bytes(data) is None


@pytest.mark.parametrize(
    ("head", "container"),
    [
        (b"\0\0\0\x18ftypisom", "mov"),
        (b"\0\0\0\x14ftypqt  ", "mov"),
        (b"\x1aE\xdf\xa3\x9f", "matroska"),
        (b"RIFF0000AVI LIST", "avi"),
        (b"OggS" + bytes(24) + b"\x80theora", "ogg"),
        (b"G" + bytes(187) + b"G" + bytes(187), "mpegts"),
        (b"\0\0\x01\xba", "mpeg"),
        (b"FLV\x01", "flv"),
    ],
)
def test_videos_are_known_by_their_bytes(head: bytes, container: str) -> None:
    assert container_of(head) == container
    assert kind_of_bytes(head + bytes(200)) == "video"


def test_an_animated_picture_is_a_picture_unless_it_is_read_as_a_video() -> None:
    """Also one whose 189th byte looks like a transport stream's mark."""
    head = b"GIF89a" + b"G" * 250
    assert (kind_of_bytes(head), container_of(head)) == ("image", "gif")


def test_dicom_is_a_picture() -> None:
    assert kind_of_bytes(bytes(128) + b"DICM" + bytes(20)) == "image"


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.JPG", "image"), ("b/c.opus", "audio"), ("x", None), ("a.txt", None), (".jpg", None), ("a/B.MP4", "video")],
)
def test_endings(name: str, kind: str | None) -> None:
    assert kind_of_ending(name) == kind


@pytest.mark.parametrize(
    "text", ["", "images/001.jpg", "a word", "A" * 40, "data:text/plain,hello", "data:x;base64,%%"]
)
def test_what_is_not_embedded(text: str) -> None:
    assert embedded_bytes(text) is None


def test_files_are_found_inside_the_root_only(tmp_path: Path) -> None:
    root = (tmp_path / "root").resolve()
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "a.png").write_bytes(b"x")
    (tmp_path / "b.png").write_bytes(b"x")
    (root / "link.png").symlink_to(tmp_path / "b.png")
    (root / "loop").symlink_to(root / "loop")
    assert find_file("sub/a.png", root) == find_file("sub\\a.png", root) == root / "sub" / "a.png"
    for cell in (
        "../b.png",
        str(tmp_path / "b.png"),
        "link.png",
        "sub",
        "no.png",
        "loop",
        "a\0",
        "x" * 2000,
        "http://a/b",
    ):
        assert find_file(cell, root) is None
    assert find_file("sub/a.png", None) is None
