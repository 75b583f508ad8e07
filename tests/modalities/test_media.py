import base64
import os
from pathlib import Path

import pytest

from fuseline.errors import FuselineError
from fuseline.modalities import MediaRoot
from fuseline.modalities.media import read_media

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(64))


@pytest.fixture
def root(tmp_path: Path) -> MediaRoot:
    folder = tmp_path / "table"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "one.png").write_bytes(PNG)
    (folder / "empty.png").write_bytes(b"")
    (tmp_path / "secret.png").write_bytes(PNG)
    return MediaRoot(str(folder))


def read(cell: object, root: MediaRoot, max_bytes: int = 1000) -> bytes:
    return read_media(cell, "picture", root, max_bytes=max_bytes)


def fails(cell: object, root: MediaRoot, code: str = "bad_cell", max_bytes: int = 1000) -> FuselineError:
    with pytest.raises(FuselineError) as caught:
        read(cell, root, max_bytes)
    assert caught.value.code == code
    assert caught.value.column == "picture"
    return caught.value


@pytest.mark.parametrize("path", ["images/one.png", "images\\one.png", "./images/one.png", "images/../images/one.png"])
def test_a_path_inside_the_folder_is_read(path: str, root: MediaRoot) -> None:
    assert read(path, root) == PNG
    assert read(Path(path.replace("\\", "/")), root) == PNG
    assert read({"path": path, "bytes": None}, root) == PNG


@pytest.mark.parametrize("folder", [True, False])
def test_bytes_base64_and_data_uris_need_no_folder(folder: bool, root: MediaRoot) -> None:
    where = root if folder else MediaRoot(None)
    text = base64.b64encode(PNG).decode()
    assert read(PNG, where) == PNG
    assert read(memoryview(PNG), where) == PNG
    assert read({"bytes": PNG, "path": "/any/where.png"}, where) == PNG
    assert read(text, where) == PNG
    assert read(text[:40] + "\n" + text[40:], where) == PNG
    assert read("data:image/png;base64," + text, where) == PNG


@pytest.mark.parametrize(
    "path", ["../secret.png", "images/../../secret.png", "..\\secret.png", "/etc/passwd", "C:\\x.png", "~/x.png"]
)
def test_no_path_leaves_the_folder(path: str, root: MediaRoot) -> None:
    fails(path, root, "unsafe_path")


def test_a_link_out_of_the_folder_is_unsafe_and_one_inside_is_not(root: MediaRoot, tmp_path: Path) -> None:
    folder = Path(root.folder or "")
    (folder / "out.png").symlink_to(tmp_path / "secret.png")
    (folder / "out").symlink_to(tmp_path)
    (folder / "in.png").symlink_to(folder / "images" / "one.png")
    fails("out.png", root, "unsafe_path")
    fails("out/secret.png", root, "unsafe_path")
    assert read("in.png", root) == PNG


def test_a_sibling_folder_with_the_same_beginning_is_outside(root: MediaRoot, tmp_path: Path) -> None:
    (tmp_path / "table-2").mkdir()
    (tmp_path / "table-2" / "x.png").write_bytes(PNG)
    fails("../table-2/x.png", root, "unsafe_path")


def test_without_a_folder_no_file_is_opened(root: MediaRoot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root.folder or "")

    def refuse(*_: object) -> int:
        raise AssertionError("opened a file")

    monkeypatch.setattr(os, "open", refuse)
    for cell in ("images/one.png", Path("images/one.png"), {"path": "images/one.png"}, "empty", "/etc/passwd"):
        fails(cell, MediaRoot(None))


@pytest.mark.parametrize("url", ["http://host/x.png", "HTTPS://host/x.png", "file:///etc/passwd", "s3://b/x"])
def test_urls_are_never_fetched(url: str, root: MediaRoot) -> None:
    assert "never fetched" in fails(url, root).message
    assert "never fetched" in fails({"path": url}, MediaRoot(None)).message


def test_a_missing_file_names_its_neighbour(root: MediaRoot) -> None:
    error = fails("images/onne.png", root)
    assert error.message == "no such file: 'images/onne.png'"
    assert "did you mean 'images/one.png'?" in error.hint
    assert "no folder 'pictures'" in fails("pictures/one.png", root).hint


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("images", "folder"),
        (".", "folder"),
        ("empty.png", "0 bytes"),
        (b"", "0 bytes"),
        ("images/one.png/x", "no such file"),
        ("one\0.png", "zero byte"),
        ("x" * 300 + ".png", "cannot open"),
        ("no base64! " * 110, "not base64"),
        ("data:image/png;base64,%%%", "not base64"),
        ("data:image/png,abc", "no base64 data URI"),
        (12.5, "no file"),
        (["images/one.png"], "no file"),
        ({"url": "x"}, "keys"),
    ],
)
def test_a_bad_cell_says_why(cell: object, words: str, root: MediaRoot) -> None:
    error = fails(cell, root)
    assert words in error.message
    assert len(error.message) < 250


def test_files_that_are_too_large_are_not_read(root: MediaRoot) -> None:
    for cell in (PNG, "images/one.png", base64.b64encode(PNG).decode(), "data:;base64," + "A" * 400):
        assert "larger than" in fails(cell, root, max_bytes=20).message


def test_a_named_pipe_does_not_hang(root: MediaRoot) -> None:
    os.mkfifo(Path(root.folder or "") / "pipe.png")
    assert "no regular file" in fails("pipe.png", root).message
