"""A service over the tiny package, in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import served

import fuseline
from fuseline.runtime import Answer
from fuseline.serve.engine import Local
from fuseline.serve.service import Service
from fuseline.serve.settings import Settings

Open = Callable[..., AbstractAsyncContextManager[Service]]


@pytest.fixture(scope="session")
def rows() -> list[dict[str, Any]]:
    return served.rows()


@pytest.fixture(scope="session")
def answers(package: Path, rows: list[dict[str, Any]]) -> list[Answer]:
    """The predictor's own, one row at a time."""
    predictor = fuseline.load(package)
    return [predictor.predict([row])[0] for row in rows]


@pytest.fixture(scope="session")
def open_service(package: Path) -> Open:
    @asynccontextmanager
    async def opened(observers: Any = None, **changes: Any) -> AsyncIterator[Service]:
        settings = Settings(**{"objective_ms": 60_000, **changes})
        service = Service(Local(settings, threads=1), settings, observers)
        await service.load(package, "clinic")
        try:
            yield service
        finally:
            await service.close()

    return opened
