"""Where the image gets Fuseline from: a wheel, an sdist, a source folder, or the package index; and which versions."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from fuseline.errors import FuselineError

_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,120}(\.whl|\.tar\.gz)")
_REQUIREMENT = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,80}[A-Za-z0-9])?(==[A-Za-z0-9.+!_-]{1,40})?")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_EXTRA = re.compile(r"""extra\s*==\s*['"]([^'"]+)['"]""")
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "src")


@dataclass(frozen=True)
class Source:
    requirement: str
    """what pip installs in the image, extras included"""
    copied: Path | None
    """file or folder that goes into the build context, or None for the package index"""


def find_source(given: str | None, extras: str) -> Source:
    """`given`: path of a wheel, an sdist or a source folder; a requirement (`fuseline==0.1.0`); None: this version."""
    if given is None:
        return Source(f"fuseline[{extras}]=={metadata.version('fuseline')}", None)
    path = Path(given)
    if path.is_dir():
        if not (path / "pyproject.toml").is_file() or not (path / "src/fuseline").is_dir():
            raise FuselineError(
                "bad_setting", f"{given} is no source of Fuseline", "it lacks pyproject.toml or src/fuseline"
            )
        return Source(f"/build/fuseline/source[{extras}]", path)
    if path.is_file():
        if not _FILE.fullmatch(path.name):
            raise FuselineError("bad_setting", f"{path.name[:80]!r} is no wheel or sdist", "NAME.whl or NAME.tar.gz")
        return Source(f"/build/fuseline/{path.name}[{extras}]", path)
    if not _REQUIREMENT.fullmatch(given):
        raise FuselineError(
            "no_such_file", f"no file {given[:80]!r}", "a wheel, an sdist, a source folder, or NAME==VERSION"
        )
    name, _, version = given.partition("==")
    return Source(f"{name}[{extras}]" + (f"=={version}" if version else ""), None)


def copy_source(source: Source, folder: Path) -> None:
    """Put the wheel, or only what builds one, into the build context."""
    folder.mkdir(parents=True)
    if source.copied is None:
        (folder / "from-the-package-index").touch()  # COPY needs something to copy
    elif source.copied.is_file():
        shutil.copyfile(source.copied, folder / source.copied.name)
    else:
        for name in SOURCES:
            path = source.copied / name
            if path.is_dir():
                shutil.copytree(path, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
            elif path.is_file():
                (folder / "source").mkdir(exist_ok=True)
                shutil.copyfile(path, folder / "source" / name)


def constraints(extras: str) -> str:
    """The versions installed here of everything that serving needs: what was tested is what goes into the image."""
    versions: dict[str, str] = {}
    wanted = set(extras.split(","))
    queue = [r for r in metadata.requires("fuseline") or () if not (m := _EXTRA.search(r)) or m[1] in wanted]
    while queue:
        found = _NAME.match(queue.pop())
        name = re.sub(r"[-_.]+", "-", found[0]).lower() if found else ""
        if not name or name in versions or name == "fuseline":
            continue
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # for another platform or Python: the index decides
            continue
        queue += [r for r in metadata.requires(name) or () if not _EXTRA.search(r)]
    return "".join(f"{n}=={v.split('+')[0]}\n" for n, v in sorted(versions.items()))
