"""Cells that name files, when the table that holds them moves to another folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fuseline.data.items import items_of
from fuseline.errors import FuselineError
from fuseline.modalities import modality_class
from fuseline.recipe import Recipe

LONGEST = 1024
"""characters of a path; a longer text is base64"""
COPIES = "added-media"
"""folder beside a table for files that were copied to it"""


def file_columns(recipe: Recipe) -> list[str]:
    """The columns whose cells may name files. None of them moves where the recipe says where files lie."""
    if recipe.table.media_root:
        return []
    out = []
    for name, spec in recipe.inputs.items():
        if getattr(modality_class(spec.modality), "file", False):
            kinds = spec.columns or dict.fromkeys(recipe.columns_of(name), "image")
            out += [c for c, kind in kinds.items() if kind == "image"]
    return list(dict.fromkeys(out))


def moved(cell: Any, old: Path, place: Callable[[Path], str]) -> Any:
    """The cell with every file of folder `old` that it names put as `place` says. What names no file stays."""
    if cell is None or isinstance(cell, (bytes, bytearray, memoryview, dict)):
        return cell
    if isinstance(cell, str) and (path := _file(cell, old)):  # also a name that holds a `;`
        return place(path)
    items = items_of(cell, files=True)
    if not any(_file(item, old) for item in items):
        return cell
    new = [place(path) if (path := _file(item, old)) else item for item in items]
    if not isinstance(cell, str):
        return new
    return json.dumps(new, ensure_ascii=False) if cell.strip().startswith("[") else ";".join(map(str, new))


def _file(item: Any, old: Path) -> Path | None:
    if not isinstance(item, str) or not item.strip() or len(item) > LONGEST or "\0" in item:
        return None
    path = old / item.strip().replace("\\", "/")
    try:
        return path if path.is_file() else None
    except OSError:
        return None


def relative_to(folder: Path) -> Callable[[Path], str]:
    """Paths as a table in `folder` names them, `..` and all."""
    return lambda path: Path(os.path.relpath(path, folder)).as_posix()


def inside(folder: Path, *, copy: bool, column: str) -> Callable[[Path], str]:
    """Paths as a table in `folder` names them, which must lie in it: another file is copied to it, or refused.

    Raises FuselineError ``unsafe_path``.
    """
    root = folder.resolve()

    def place(path: Path) -> str:
        real = path.resolve()
        if real.is_relative_to(root):
            return _plain(real, root)
        if not copy:
            raise FuselineError(
                "unsafe_path",
                f"{path} lies outside of {folder}, where cells of its table may not point",
                "copy such files beside the table with --copy-media",
                column=column,
            )
        with real.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:20]
        target = root / COPIES / f"{digest}{real.suffix.lower()}"
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            part = target.with_name(target.name + ".new")
            shutil.copyfile(real, part)
            os.replace(part, target)
        return _plain(target, root)

    return place


def _plain(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
