"""Packages as the command line names them: checked before anything starts."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from fuseline.errors import FuselineError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class Spec:
    """One package as the command line names it: [NAME=]PATH."""

    path: Path
    name: str
    share: float | None = None
    shadow: bool = False


def spec_of(text: str, *, share: float | None = None, shadow: bool = False) -> Spec:
    """Raises FuselineError ``no_such_file``, ``bad_package`` or ``bad_request`` (a name that no URL can hold)."""
    name, equals, path = text.partition("=")
    if not equals or "/" in name:
        name, path = "", text
    folder = Path(path)
    manifest = next((p for p in (folder / "model.fuse", folder) if (p / "manifest.json").is_file()), None)
    if manifest is None:
        raise FuselineError("no_such_file", f"no package at {folder}", "a package is a folder NAME.fuse/")
    if not name:
        try:
            name = str(json.loads((manifest / "manifest.json").read_text(encoding="utf-8"))["name"])
        except (OSError, ValueError, KeyError, TypeError):
            raise FuselineError("bad_package", f"{folder}/manifest.json names nothing", "export it again") from None
    if not NAME.fullmatch(name):
        raise FuselineError(
            "bad_request",
            f"{name[:80]!r} cannot be a model's name in a URL",
            f"give one: NAME={folder} (letters, digits, _.-)",
        )
    return Spec(folder, name, share, shadow)
