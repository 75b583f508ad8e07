"""Prometheus's own programs. A developer without them gets skips that say so; in CI they must be there."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

PACKAGES = "apt-get install prometheus prometheus-alertmanager"


@pytest.fixture(scope="session")
def program() -> Callable[..., str]:
    """The first of some names that is installed."""

    def find(*names: str) -> str:
        for name in names:
            if (found := shutil.which(name)) is not None:
                return found
        said = f"{names[0]} is not installed: {PACKAGES}"
        if os.environ.get("CI"):
            pytest.fail(said)
        pytest.skip(said)

    return find


@pytest.fixture(scope="session")
def checked(program: Callable[..., str]) -> Callable[..., str]:
    """Run promtool or amtool in a folder; what it said, where it succeeded."""

    def run(folder: Path, name: str, *words: str) -> str:
        done = subprocess.run(
            [program(name), *words], cwd=folder, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run
