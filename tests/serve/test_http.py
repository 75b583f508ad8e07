"""The people's API, the doors in front of it, and the document that describes it."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from fuseline.errors import FuselineError
from fuseline.runtime import Answer
from fuseline.serve import keys
from fuseline.serve.http import make_admin, make_app
from fuseline.serve.keys import Keys
from fuseline.serve.service import Service

Client = httpx.AsyncClient
PREDICT = "/v1/models/clinic/predict"


@pytest.fixture
def talk(open_service: Any) -> Callable[..., None]:
    """Run a conversation with an application in this process."""

    def run(conversation: Callable[..., Awaitable[None]], *, key_file: Path | None = None, **changes: Any) -> None:
        async def go() -> None:
            async with open_service(**changes) as service:
                app = make_app(service, service.settings, keys=Keys(key_file) if key_file else None)
                transport = httpx.ASGITransport(app, raise_app_exceptions=False)
                async with Client(transport=transport, base_url="http://here") as client:
                    await conversation(client, service)

        asyncio.run(go())

    return run


def as_json(row: dict[str, Any]) -> dict[str, Any]:
    return {k: base64.b64encode(v).decode() if isinstance(v, bytes) else v for k, v in row.items()}


def test_rows_as_json(talk: Any, rows: list[Any], answers: list[Answer]) -> None:
    async def conversation(client: Client, service: Service) -> None:
        for row, want in zip(rows, answers, strict=True):
            reply = await client.post(PREDICT, json={"rows": [as_json(row)]}, headers={"X-Request-Id": "me-1"})
            said = reply.json()
            assert reply.status_code == 200
            assert reply.headers["content-type"] == "application/json"
            assert said["request_id"] == reply.headers["x-request-id"] == "me-1"
            assert said["version"] == service.info("clinic").version
            assert Answer.from_dict(said["answers"][0]) == want, "bit for bit, through JSON"

    talk(conversation)


def test_a_form_with_files(talk: Any, rows: list[Any], answers: list[Answer]) -> None:
    place = next(i for i, r in enumerate(rows) if "picture" in r and "sound" in r)

    async def conversation(client: Client, service: Service) -> None:
        row = rows[place]
        files = {k: (f"{k}.bin", v) for k, v in row.items() if isinstance(v, bytes)}
        fields = {k: str(v) for k, v in row.items() if not isinstance(v, bytes)} | {"contributions": "true"}
        reply = await client.post(PREDICT, files=files, data=fields)
        [answer] = reply.json()["answers"]
        assert answer["probabilities"] == answers[place].probabilities
        assert set(answer["contributions"]["inputs"]) == set(answers[place].used)

    talk(conversation)


def test_a_bad_row_among_good_ones(talk: Any) -> None:
    async def conversation(client: Client, service: Service) -> None:
        reply = await client.post(PREDICT, json={"rows": [{"age": 40}, {"age": "old"}]})
        good, bad = reply.json()["answers"]
        assert reply.status_code == 200
        assert good["used"] == ["vitals"]
        assert bad["value"] is None
        assert (bad["error"]["row"], bad["error"]["column"]) == (1, "age")

    talk(conversation)


LONG = "[" * 40 + "]" * 40
REFUSED = {
    "no model": ("/v1/models/clinik/predict", {"json": {"rows": [{}]}}, 404, "unknown_model"),
    "no version": ("/v1/models/clinic/versions/x/predict", {"json": {"rows": [{}]}}, 404, "unknown_version"),
    "no path": ("/v1/nothing", {"json": {}}, 404, "not_found"),
    "wrong method": ("/v1/models", {"json": {}}, 405, "not_allowed"),
    "no rows": (PREDICT, {"json": {"rows": []}}, 422, "bad_rows"),
    "rows are no list": (PREDICT, {"json": {"rows": {"age": 1}}}, 400, "bad_request"),
    "unknown key": (PREDICT, {"json": {"rows": [{}], "model": "x"}}, 400, "bad_request"),
    "no JSON": (PREDICT, {"content": b"{"}, 400, "bad_request"),
    "no object": (PREDICT, {"content": b"3"}, 400, "bad_request"),
    "NaN": (PREDICT, {"content": b'{"rows":[{"age":NaN}]}'}, 400, "bad_request"),
    "half a surrogate": (PREDICT, {"content": b'{"rows":[{"note":"\\ud800"}]}'}, 200, ""),
    "not UTF-8": (PREDICT, {"content": b'{"rows":[{"note":"\xff"}]}'}, 400, "bad_request"),
    "too deep": (PREDICT, {"content": b'{"rows":' + LONG.encode() + b"}"}, 400, "bad_request"),
    "huge number": (PREDICT, {"content": b'{"rows":[{"age":' + b"9" * 5000 + b"}]}"}, 400, "bad_request"),
    "large number": (PREDICT, {"content": b'{"rows":[{"age":' + b"9" * 400 + b"}]}"}, 422, "bad_cell"),
    "too many rows": (PREDICT, {"json": {"rows": [{}] * 300}}, 413, "too_large"),
    "a row is a list": (PREDICT, {"json": {"rows": [[1]]}}, 422, "bad_rows"),
    "a cell is a list": (PREDICT, {"json": {"rows": [{"sex": ["m"]}]}}, 422, "bad_cell"),
    "a path": (PREDICT, {"json": {"rows": [{"picture": "/etc/passwd"}]}}, 422, "bad_cell"),
    "a path in a mapping": (PREDICT, {"json": {"rows": [{"picture": {"path": "/etc/passwd"}}]}}, 422, "bad_cell"),
    "a URL": (PREDICT, {"json": {"rows": [{"picture": "http://127.0.0.1/x.png"}]}}, 422, "bad_cell"),
    "a misspelt column": (PREDICT, {"json": {"rows": [{"pictur": ""}]}}, 422, "unknown_column"),
    "another type": (PREDICT, {"content": b"x", "headers": {"content-type": "text/csv"}}, 415, "unsupported_type"),
    "a broken form": (
        PREDICT,
        {"content": b"--x", "headers": {"content-type": "multipart/form-data; boundary=b"}},
        400,
        "bad_request",
    ),
    "a form without a boundary": (
        PREDICT,
        {"content": b"--x", "headers": {"content-type": "multipart/form-data"}},
        400,
        "bad_request",
    ),
    "a broken deadline": (PREDICT, {"json": {"rows": [{}]}, "headers": {"x-deadline-ms": "soon"}}, 400, "bad_request"),
    "another encoding": (PREDICT, {"content": b"x", "headers": {"content-encoding": "br"}}, 415, "unsupported_type"),
}


def test_refusals_have_one_form(talk: Any) -> None:
    async def conversation(client: Client, service: Service) -> None:
        for name, (path, request, status, code) in REFUSED.items():
            reply = await client.post(path, **{"headers": {"content-type": "application/json"}, **request})
            assert reply.status_code == status, (name, reply.text)
            assert reply.headers["content-type"] == "application/json", name
            if code:
                said = reply.json()
                assert said["code"] == code, (name, said)
                assert said["error"], name
                assert said["request_id"] == reply.headers["x-request-id"], name
                assert "Traceback" not in reply.text, name

    talk(conversation)


def test_a_full_house_says_when_to_come_back(talk: Any) -> None:
    async def conversation(client: Client, service: Service) -> None:
        service._models["clinic"].waiting_rows = 4
        reply = await client.post(PREDICT, json={"rows": [{}]})
        assert reply.status_code == 429
        assert int(reply.headers["retry-after"]) >= 1

    talk(conversation, queue_rows=4)


def test_what_is_no_ones_business_is_not_said(talk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("/secret/path")

    async def conversation(client: Client, service: Service) -> None:
        monkeypatch.setattr(service.engine, "score", broken)
        for path, body in ((PREDICT, {"rows": [{}]}),):
            reply = await client.post(path, json=body)
            assert reply.status_code == 500
            assert "secret" not in reply.text
            assert reply.json()["error"] == "internal error"

    talk(conversation)


def test_keys_are_asked_for_where_there_are_any(talk: Any, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    secret = keys.add(file, "ward")

    async def conversation(client: Client, service: Service) -> None:
        for path in ("/v1/models", "/v2/models/clinic", "/metrics", "/openapi.json", "/v1/status"):
            assert (await client.get(path)).status_code == 401, path
        for path in ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/"):
            assert (await client.get(path)).status_code == 200, path
        for headers in ({"Authorization": f"Bearer {secret}"}, {"X-Api-Key": secret}):
            assert (await client.get("/v1/models", headers=headers)).status_code == 200
        refused = (await client.get("/v2/models/clinic")).json()
        assert list(refused) == ["error"]

    talk(conversation, key_file=file)


def test_readiness_and_draining(talk: Any) -> None:
    async def conversation(client: Client, service: Service) -> None:
        assert (await client.get("/readyz")).status_code == 200
        service.draining = True
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/healthz")).status_code == 200
        reply = await client.post(PREDICT, json={"rows": [{"age": 1}]})
        assert reply.status_code == 200, "what still comes is still answered"
        assert reply.headers["connection"] == "close"

    talk(conversation)


def test_request_ids_are_safe(talk: Any) -> None:
    async def conversation(client: Client, service: Service) -> None:
        for given in ("a b", "x" * 200, "é"):
            reply = await client.get("/healthz", headers=[(b"x-request-id", given.encode())])
            assert len(reply.headers["x-request-id"]) == 32
        assert (await client.get("/healthz", headers={"X-Request-Id": "ok-1"})).headers["x-request-id"] == "ok-1"

    talk(conversation)


def test_the_document_knows_the_columns(talk: Any) -> None:
    async def conversation(client: Client, service: Service) -> None:
        document = (await client.get("/openapi.json")).json()
        operation = document["paths"][PREDICT]["post"]
        body = operation["requestBody"]["content"]["application/json"]["schema"]
        columns = body["properties"]["rows"]["items"]["properties"]
        assert set(columns) == {c.name for c in service.info("clinic").columns}
        assert columns["picture"]["contentEncoding"] == "base64"
        assert columns["sex"]["examples"] == ["m", "f"] or set(columns["sex"]["examples"]) == {"f", "m"}
        assert "/v1/models/{model}/predict" not in document["paths"]
        json.dumps(document, allow_nan=False)

    talk(conversation)


def test_management_is_elsewhere(talk: Any, open_service: Any, other_package: Path) -> None:
    async def conversation(client: Client, service: Service) -> None:
        for path in ("/v2/repository/models/clinic/load", "/v2/repository/models/clinic/unload"):
            assert (await client.post(path, json={})).status_code == 404
        old = service.info("clinic").version
        looked: list[str] = []

        async def look(name: str) -> None:
            service.info(name)
            looked.append(name)

        new = (await service.load(other_package, "clinic", share=0.0)).version
        transport = httpx.ASGITransport(make_admin(service, look))
        async with Client(transport=transport, base_url="http://admin") as admin:
            assert (await admin.post("/v2/repository/models/clinic/load")).status_code == 200
            assert looked == ["clinic"]
            share = f"/v1/models/clinic/versions/{new}/share"
            assert (await admin.put(share, params={"share": 0.3})).status_code == 200
            assert service.gauges()[0].versions == {old: 0.7, new: 0.3}
            assert (await admin.put(share, params={"share": 7})).status_code == 400
            assert (await admin.put(share, params={"share": 1})).status_code == 200
            assert service.info("clinic").version == new
            assert (await admin.post(f"/v2/repository/models/clinic/versions/{old}/unload")).status_code == 200
            assert [m.version for m in service.models()] == [new]

    talk(conversation)


def test_the_same_table_of_codes_everywhere() -> None:
    from fuseline.serve.status import STATUS, status_of

    assert status_of("never heard of it") == 500
    assert all(400 <= s < 600 for s in STATUS.values())
    assert isinstance(FuselineError("deadline", "x").code, str)
