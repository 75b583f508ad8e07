from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import watched


@pytest.fixture(scope="session")
def profile() -> dict[str, Any]:
    return watched.profile()
