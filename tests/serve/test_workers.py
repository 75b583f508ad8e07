"""Worker processes: the same answers, and a crash that costs only what was inside it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from fuseline.errors import FuselineError
from fuseline.runtime import Answer
from fuseline.serve.calls import Call
from fuseline.serve.service import Service
from fuseline.serve.settings import Settings
from fuseline.serve.workers import Workers


def test_workers(package: Path, rows: list[dict[str, Any]], answers: list[Answer]) -> None:
    """One start for all, since processes start slowly."""
    asyncio.run(_story(package, rows, answers))


async def _story(package: Path, rows: list[dict[str, Any]], answers: list[Answer]) -> None:
    settings = Settings(workers=2, threads=1, objective_ms=60_000)
    engine = Workers(settings)
    await engine.start()
    service = Service(engine, settings)
    try:
        info = await service.load(package, "clinic")
        for row, want in zip(rows, answers, strict=True):
            assert (await service.predict(Call("clinic", [row], "a"))).answers[0] == want
        await _a_bad_row_keeps_its_place(service, rows)
        await _a_kill_costs_what_was_inside(service, engine, rows, answers)
        with pytest.raises(FuselineError, match="no package"):
            await service.load(package / "nothing", "clinic")
        assert service.info("clinic").version == info.version
        pids = engine.pids
    finally:
        await service.close()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def _a_bad_row_keeps_its_place(service: Service, rows: list[dict[str, Any]]) -> None:
    reply = await service.predict(Call("clinic", [rows[0], {"age": "old"}], "a"))
    assert reply.answers[0].error is None
    error = reply.answers[1].error
    assert error is not None
    assert (error.code, error.row, error.column) == ("bad_cell", 1, "age")


async def _a_kill_costs_what_was_inside(
    service: Service, engine: Workers, rows: list[dict[str, Any]], answers: list[Answer]
) -> None:
    victim = engine.pids[0]
    calls = [asyncio.create_task(service.predict(Call("clinic", rows, str(i)))) for i in range(8)]
    await asyncio.sleep(0.01)
    os.kill(victim, signal.SIGKILL)
    results = await asyncio.gather(*calls, return_exceptions=True)
    lost = [r for r in results if isinstance(r, FuselineError)]
    assert {e.code for e in lost} <= {"worker_died"}
    assert 1 <= len(lost) <= 4, "the other worker had the other half"
    assert service.ready(), "the other worker goes on"
    start = time.monotonic()
    while len([p for p in engine.pids if p != victim]) < 2:
        assert time.monotonic() - start < 60
        await asyncio.sleep(0.05)
    assert engine.restarts == 1
    while not all(c is not None and c.keys for c in engine._children):
        assert time.monotonic() - start < 60
        await asyncio.sleep(0.05)
    reply = await service.predict(Call("clinic", [rows[0]], "after"))
    assert reply.answers[0] == answers[0]
