"""A service that answers at once by a rule, so that the doors can be tested without a model."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from fuseline.errors import FuselineError, closest
from fuseline.runtime import Answer
from fuseline.serve.calls import Call, ColumnInfo, ModelInfo, Reply
from fuseline.serve.settings import Settings
from fuseline.serve.v2.routes import router

COLUMNS = (
    ColumnInfo("picture", "image", "picture"),
    ColumnInfo("note", "text", "note"),
    ColumnInfo("sound", "audio", "sound"),
    ColumnInfo("age", "number", "vitals"),
    ColumnInfo("sex", "category", "vitals", values=("f", "m")),
    ColumnInfo("smoker", "boolean", "vitals"),
    ColumnInfo("seen", "date", "vitals"),
)


def make_info(name: str = "clinic", version: str = "v1", **other: Any) -> ModelInfo:
    known: dict[str, Any] = {
        "name": name,
        "version": version,
        "task": "classification",
        "mode": "binary",
        "classes": ("no", "yes"),
        "targets": ("sick",),
        "inputs": {"picture": "image", "note": "text", "sound": "audio", "vitals": "tabular"},
        "columns": COLUMNS,
        "bytes": 1,
        "fuseline": "0",
    }
    return ModelInfo(**(known | other))


@dataclass
class Fake:
    """Answers `yes` with probability age / 100; a row whose note is bytes, or says `bad`, is that row's error."""

    infos: list[ModelInfo] = field(default_factory=lambda: [make_info(), make_info(version="v2"), make_info("other")])
    calls: list[Call] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    seconds: float = 0.0
    failure: Exception | None = None
    is_ready: bool = True

    async def predict(self, call: Call) -> Reply:
        self.calls.append(call)
        info = self.info(call.model, call.version)
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled.append(call.id)
            raise
        if self.failure is not None:
            raise self.failure
        answers = tuple(self._answer(row, i) for i, row in enumerate(call.rows))
        if all(a.error for a in answers):
            assert answers[0].error is not None
            raise answers[0].error
        return Reply(info.name, info.version, call.id, answers, 0.0, 0.0)

    def _answer(self, row: Any, place: int) -> Answer:
        note = row.get("note")
        if isinstance(note, bytes) or note == "bad":
            return Answer(error=FuselineError("bad_cell", "a bad note", "mend it", row=place, column="note"))
        age = row.get("age")
        chance = 0.1 if not isinstance(age, int | float) or not math.isfinite(age) else abs(age) % 100 / 100
        value = "yes" if chance >= 0.5 else "no"
        absent = tuple(c.name for c in COLUMNS if row.get(c.name) is None)
        used = tuple(c.name for c in COLUMNS if row.get(c.name) is not None)
        return Answer(value, {"no": 1 - chance, "yes": chance}, None, used, absent)

    def refused(self, call: Call, error: FuselineError) -> None:
        assert not call.rows
        assert error.code

    def check_room(self, name: str, rows: int = 1) -> None:
        assert rows == 1

    def models(self) -> list[ModelInfo]:
        return self.infos

    def info(self, name: str, version: str | None = None) -> ModelInfo:
        named = [i for i in self.infos if i.name == name]
        if not named:
            near = closest(name, [i.name for i in self.infos])
            raise FuselineError("unknown_model", f"no model {name[:100]!r} is served here", f"did you mean {near!r}?")
        for info in named:
            if version in (None, info.version):
                return info
        raise FuselineError("unknown_version", f"{name} has no version {version!r}")

    def ready(self, name: str | None = None, version: str | None = None) -> bool:
        return self.is_ready

    def live(self) -> bool:
        return True

    def stats(self, name: str, version: str | None = None) -> dict[str, Any]:
        took = {"count": 3, "ns": 5_000_000}
        counts = dict.fromkeys(("success", "fail", "queue", "compute"), took)
        return {"inference_count": 7, "execution_count": 2, **counts}


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
def settings() -> Settings:
    return Settings(max_rows=8, max_body_mb=1.0)


@pytest.fixture
def client(fake: Fake, settings: Settings) -> TestClient:
    app = FastAPI()
    app.include_router(router(fake, settings))
    return TestClient(app, raise_server_exceptions=True)
