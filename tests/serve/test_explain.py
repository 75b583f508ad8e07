"""POST /v1/models/NAME/explain."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from typing import Any

import httpx
import pytest

import fuseline
from fuseline.errors import FuselineError
from fuseline.explain import Explanations, Options
from fuseline.serve.calls import Call
from fuseline.serve.http import make_app

PATH = "/v1/models/clinic/explain"


def ask(open_service: Any, bodies: list[Any], **settings: Any) -> list[httpx.Response]:
    async def go() -> list[httpx.Response]:
        async with open_service(**settings) as service:
            transport = httpx.ASGITransport(make_app(service, service.settings), raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
                return [await client.post(PATH, json=body) for body in bodies]

    return asyncio.run(go())


def as_json(row: dict[str, Any]) -> dict[str, Any]:
    return {k: base64.b64encode(v).decode() if isinstance(v, bytes) else v for k, v in row.items()}


def test_the_same_as_the_predictor_says(open_service: Any, package: Any, rows: list[Any]) -> None:
    row = next(r for r in rows if "note" in r and "picture" in r)
    asked = {"rows": [as_json(row), {"age": "old"}], "inside": ["note"], "changes": {"age": 70}, "grid": 2}
    [reply] = ask(open_service, [asked])
    assert reply.status_code == 200, reply.text
    found = Explanations.model_validate(reply.json())
    [want] = fuseline.load(package).explain([row], inside=["note"], changes={"age": 70}, grid=2).rows
    got = found.rows[0]
    assert got.inputs.values == pytest.approx(want.inputs.values, abs=1e-5)
    assert [p.label for p in got.inside[0].parts] == [p.label for p in want.inside[0].parts]
    assert [p.value for p in got.inside[0].parts] == pytest.approx([p.value for p in want.inside[0].parts], abs=1e-5)
    assert got.what_if[-1].quantity == pytest.approx(want.what_if[-1].quantity, abs=1e-5)
    assert found.rows[1].error["code"] == "bad_cell"


def test_of_one_version(open_service: Any, rows: list[Any]) -> None:
    async def go() -> list[httpx.Response]:
        async with open_service() as service:
            transport = httpx.ASGITransport(make_app(service, service.settings), raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
                version = (await client.get("/v1/models/clinic")).json()["version"]
                paths = [PATH.replace("/explain", f"/versions/{v}/explain") for v in (version, "other")]
                row = next(as_json(r) for r in rows if "picture" in r)
                body = {"rows": [row], "inside": ["picture"], "grid": 2}
                return [await client.post(path, json=body) for path in paths]

    found, unknown = asyncio.run(go())
    [row] = Explanations.model_validate(found.json()).rows
    assert row.inside[0].seen == (0, 0, 1, 1), "the clinic's pictures are stretched"
    assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_version")


def test_what_is_refused(open_service: Any) -> None:
    row = {"note": "calm", "age": 40}
    bodies: list[tuple[Any, int, str]] = [
        ({"rows": [row], "inside": ["nose"]}, 422, "unknown_column"),
        ({"rows": [row], "inside": 3}, 400, "bad_request"),
        ({"rows": [row], "grid": 0}, 400, "bad_request"),
        ({"rows": [row], "grid": True}, 400, "bad_request"),
        ({"rows": [row], "changes": []}, 400, "bad_request"),
        ({"rows": [row], "of": "maybe"}, 422, "cannot_explain"),
        ({"rows": [row], "why": 1}, 400, "bad_request"),
        ({"rows": [{"age": "old"}]}, 422, "bad_cell"),
        ({"rows": [row] * 9}, 413, "too_large"),
        ({"rows": []}, 422, "bad_rows"),
    ]
    replies = ask(open_service, [body for body, _, _ in bodies], max_explain_rows=32)
    for (body, status, code), reply in zip(bodies, replies, strict=True):
        assert (reply.status_code, reply.json()["code"]) == (status, code), body


def test_workers_give_the_same(package: Any) -> None:
    """Through a process of its own: rows there, explanations back."""
    from fuseline.serve.settings import Settings
    from fuseline.serve.workers import Workers

    async def go() -> Any:
        engine = Workers(Settings(workers=1))
        try:
            await engine.start()
            info = await engine.load(package, "clinic")
            options = Options(inside=True, changes={"age": 70})
            return await engine.explain(
                ("clinic", info.version), [{"note": "calm breath", "age": 40}], options, deadline=1e12
            )
        finally:
            await engine.close()

    [found] = asyncio.run(go())
    [want] = fuseline.load(package).explain([{"note": "calm breath", "age": 40}], inside=True, changes={"age": 70}).rows
    assert found.inputs.values == pytest.approx(want.inputs.values, abs=1e-5)


def test_observers_hear_of_it(open_service: Any) -> None:
    class Seen:
        def __init__(self) -> None:
            self.codes: list[str] = []

        def wants(self, call: Call) -> bool:
            return False

        def loaded(self, info: Any) -> None: ...

        def unloaded(self, model: str, version: str) -> None: ...

        def ended(self, event: Any) -> None:
            self.codes.append(event.code)

        def status(self) -> dict[str, Any]:
            return {}

    async def go(make: Callable[..., Any]) -> list[str]:
        seen = Seen()
        async with make({"seen": seen}) as service:
            await service.explain(Call("clinic", ({"age": 40},), "1"), Options())
            with pytest.raises(FuselineError):
                await service.explain(Call("clinic", ({"age": "old"},), "2"), Options())
        return seen.codes

    assert asyncio.run(go(open_service)) == ["ok", "bad_cell"]
