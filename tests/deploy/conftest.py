"""A plan over quickly made packages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from deploy.packages import MEASURED, make

from fuseline.deploy import Measured, Options, Plan, make_plan
from fuseline.serve.settings import Settings


@pytest.fixture
def chest(tmp_path: Path) -> Path:
    return make(tmp_path / "chest.fuse")


@pytest.fixture
def planned(chest: Path) -> Callable[..., Plan]:
    def plan(*packages: Path, settings: Settings | None = None, measured: Measured = MEASURED, **options: Any) -> Plan:
        return make_plan(packages or [chest], Options(**options), settings or Settings(), measured=measured)

    return plan
