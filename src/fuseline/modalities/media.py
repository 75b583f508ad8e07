"""The bytes of a media cell: from a file under the media root, raw bytes, base64 or a data URI. Never from a URL."""

from __future__ import annotations

import binascii
import os
import re
import stat
from itertools import islice
from typing import Any

from fuseline.errors import FuselineError, closest
from fuseline.modalities.base import MediaRoot
from fuseline.modalities.cells import bad_cell, shorten

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+://")
_DRIVE = re.compile(r"[A-Za-z]:")
_LONGEST_PATH = 1024
_LISTED = 2000
_SIGNATURES = (
    b"\xff\xd8\xff",  # JPEG
    b"\x89PNG",
    b"GIF8",
    b"RIFF",  # WebP, WAV
    b"BM",
    b"II*\0",  # TIFF
    b"MM\0*",
    b"fLaC",
    b"OggS",
    b"ID3",  # MP3
    b"\xff\xfb",
    b"\xff\xf3",
    b"FORM",  # AIFF
    bytes(16),  # DICOM's empty preamble
    b"\x1aE\xdf\xa3",  # MKV, WebM
    b"FLV\x01",
    b"\x30\x26\xb2\x75",  # WMV
    b"\0\0\x01\xba",  # MPEG
)


def read_media(cell: Any, column: str, media: MediaRoot, *, max_bytes: int) -> bytes:
    """The content of a media cell, at most `max_bytes` long.

    A cell is a path relative to ``media.folder`` (``\\`` counts as ``/``), bytes, a Hugging Face
    ``{"bytes": ..., "path": ...}``, base64 text or a ``data:`` URI. Text is taken for base64 where no folder is given,
    where it is longer than a path, or where it decodes to the first bytes of a known media format.

    Raises:
        FuselineError: ``unsafe_path`` for a path that is absolute or leaves the folder (``..``, a symbolic link);
            ``bad_cell`` for anything else that gives no bytes, URLs included.
    """
    if isinstance(cell, dict):
        cell = _from_struct(cell, column)
    if isinstance(cell, (bytes, bytearray, memoryview)):
        data = bytes(cell)
    elif isinstance(cell, os.PathLike):
        data = _read_file(os.fsdecode(cell), column, media, max_bytes)
    elif isinstance(cell, str):
        data = _read_text(cell.strip(), column, media, max_bytes)
    else:
        raise bad_cell(column, f"{shorten(cell)} is no file", "give a path, bytes, base64 text or a data URI")
    if not data:
        raise bad_cell(column, f"{shorten(cell)} is empty (0 bytes)")
    if len(data) > max_bytes:
        raise _too_large(cell, column, max_bytes)
    return data


def _from_struct(cell: dict[Any, Any], column: str) -> Any:
    if not cell or not set(cell) <= {"bytes", "path"}:
        keys = ", ".join(map(str, islice(cell, 5)))
        raise bad_cell(column, f"a mapping with the keys {keys!r} is no file", 'give {"bytes": ..., "path": ...}')
    return cell["bytes"] if cell.get("bytes") is not None else cell.get("path")


def _read_text(text: str, column: str, media: MediaRoot, max_bytes: int) -> bytes:
    if text[:5].lower() == "data:":
        head, comma, body = text.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise bad_cell(column, f"{shorten(text)} is no base64 data URI", "write data:TYPE;base64,CONTENT")
        return _decode(body, column, max_bytes, "the text after the comma is not whole")
    if _URL.match(text):
        raise bad_cell(
            column, f"{shorten(text)} is a URL, and URLs are never fetched", "download the file and give its path"
        )
    if media.folder is None or len(text) > _LONGEST_PATH or _is_base64(text):
        hint = "send bytes, base64 or a data URI: without a media folder no file is opened"
        return _decode(text, column, max_bytes, hint if media.folder is None else "the text is not whole")
    return _read_file(text, column, media, max_bytes)


def _is_base64(text: str) -> bool:
    head = text[:24]
    # A dot ends nearly every test here: paths have a suffix, and base64 has no dot.
    if len(text) < 24 or "." in text or not head.isascii():
        return False
    try:
        first = binascii.a2b_base64(head, strict_mode=True)
    except binascii.Error:
        return False
    return first.startswith(_SIGNATURES) or first[4:8] == b"ftyp"  # MP4, MOV


def _decode(text: str, column: str, max_bytes: int, hint: str) -> bytes:
    if len(text) * 3 // 4 > max_bytes + 3:
        raise _too_large(text, column, max_bytes)
    try:
        return binascii.a2b_base64("".join(text.split()), strict_mode=True)
    except (binascii.Error, ValueError) as error:
        raise bad_cell(column, f"{shorten(text)} is not base64: {str(error)[:60]}", hint) from None


def _read_file(text: str, column: str, media: MediaRoot, max_bytes: int) -> bytes:
    if media.folder is None:
        raise bad_cell(column, f"{shorten(text)} is a path, and no media folder is given", "send the file's bytes")
    path = text.replace("\\", "/")
    if "\0" in path:
        raise bad_cell(column, f"{shorten(text)} is no path: it holds a zero byte")
    if path.startswith(("/", "~")) or _DRIVE.match(path):
        raise _unsafe(text, column, "is an absolute path", media.folder)
    root = os.path.realpath(media.folder)
    try:
        real = os.path.realpath(os.path.join(root, path))
    except OSError as error:
        raise bad_cell(column, f"cannot open {shorten(text)}: {error.strerror}") from None
    if not real.startswith(root.rstrip(os.sep) + os.sep) and real != root:
        raise _unsafe(text, column, "leaves the media folder", media.folder)
    # Non-blocking, so that a named pipe cannot hang us; no following of a link put there since `realpath`.
    flags = os.O_RDONLY
    for name in ("O_NONBLOCK", "O_NOFOLLOW", "O_CLOEXEC", "O_BINARY"):
        flags |= getattr(os, name, 0)
    try:
        handle = os.open(real, flags)
    except (FileNotFoundError, NotADirectoryError):
        raise bad_cell(column, f"no such file: {shorten(text)}", _near(real, root, media.folder)) from None
    except OSError as error:
        kind = "it is a folder" if os.path.isdir(real) else error.strerror
        raise bad_cell(column, f"cannot open {shorten(text)}: {kind}") from None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            kind = "it is a folder" if stat.S_ISDIR(status.st_mode) else "it is no regular file"
            raise bad_cell(column, f"cannot open {shorten(text)}: {kind}")
        if status.st_size > max_bytes:
            raise _too_large(text, column, max_bytes)
        with open(handle, "rb", closefd=False) as file:
            return file.read(max_bytes + 1)
    finally:
        os.close(handle)


def _near(real: str, root: str, folder: str) -> str:
    """What the user may have meant: a file beside the missing one, in a listing of bounded length."""
    parent = os.path.dirname(real)
    if not os.path.isdir(parent):
        return f"no folder {os.path.relpath(parent, root)!r} in {folder}; paths are relative to that"
    with os.scandir(parent) as entries:
        near = closest(os.path.basename(real), [entry.name for entry in islice(entries, _LISTED)])
    where = f"paths are relative to {folder}"
    return f"did you mean {os.path.relpath(os.path.join(parent, near), root)!r}? {where}" if near else where


def _unsafe(text: str, column: str, why: str, folder: str) -> FuselineError:
    hint = f"give a path inside {folder}, or set table.media_root to the folder that holds every file"
    return FuselineError("unsafe_path", f"{shorten(text)} {why}", hint, column=column)


def _too_large(cell: Any, column: str, max_bytes: int) -> FuselineError:
    hint = "raise the input's max_bytes if the file is what it should be"
    return bad_cell(column, f"{shorten(cell)} is larger than {max_bytes / 2**20:.4g} MB", hint)
