"""Packages that many tests serve and watch: made once, whatever the number of test processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import served
from filelock import FileLock

os.environ["FUSELINE_CACHE"] = "off"  # no test reads what an earlier one left in the user's cache folder


SLOW = tuple(
    line for line in (Path(__file__).parent / "slow.txt").read_text("utf-8").splitlines() if line and line[0] != "#"
)


def is_slow(nodeid: str, line: str) -> bool:
    """Whether a line of slow.txt means this test."""
    head, star, tail = line.partition("*")
    return nodeid.startswith(head) and (not star or tail in nodeid[len(head) :])


@pytest.hookimpl(tryfirst=True)  # before -m looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if any(is_slow(item.nodeid, line) for line in SLOW):
            item.add_marker("slow")
    names = {line.partition("::")[0] for line in SLOW}
    collected = {item.nodeid.partition("::")[0] for item in items}
    if names <= collected:  # all of the suite: then no line may be of a test that is gone
        gone = [line for line in SLOW if not any(is_slow(item.nodeid, line) for item in items)]
        if gone:
            raise pytest.UsageError(f"tests/slow.txt names no test: {gone[0]}")


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
