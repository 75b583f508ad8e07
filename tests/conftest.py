"""Packages that many tests serve and watch: made once, whatever the number of test processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import served
from filelock import FileLock

os.environ["FUSELINE_CACHE"] = "off"  # no test reads what an earlier one left in the user's cache folder


def _once(factory: pytest.TempPathFactory, seed: int) -> Path:
    base = factory.getbasetemp()
    shared = base.parent if base.name.startswith("popen-") else base  # pytest-xdist gives each process its own folder
    folder = shared / f"package-{seed}"
    with FileLock(str(folder) + ".lock"):
        if not (folder / "clinic.fuse" / "manifest.json").exists():
            folder.mkdir(exist_ok=True)
            served.package(folder, seed=seed)
    return folder / "clinic.fuse"


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny package over every modality: `sick`, yes or no. Read only: copy it to change it."""
    return _once(tmp_path_factory, 0)


@pytest.fixture(scope="session")
def other_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same question, other weights."""
    return _once(tmp_path_factory, 1)
