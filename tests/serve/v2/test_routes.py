"""Every route of the protocol, over a service that answers by a rule."""

from __future__ import annotations

import asyncio
import gzip
import json
import math
import time
import zlib
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given
from hypothesis import settings as given_settings
from hypothesis import strategies as st
from tritonclient.http import InferInput, InferResult
from tritonclient.http._utils import _get_inference_request

from fuseline.errors import FuselineError
from fuseline.serve.settings import Settings
from fuseline.serve.status import STATUS
from fuseline.serve.v2.routes import router

INFER = "/v2/models/clinic/infer"


def ages(*values: float | None, **other: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "age", "datatype": "FP64", "shape": [len(values)], "data": list(values)}], **other}


def outputs(answer: Any) -> dict[str, Any]:
    return {o["name"]: o["data"] for o in answer.json()["outputs"]}


def failed(answer: Any, status: int, text: str = "") -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"]
    assert text in answer.json()["error"]
    return str(answer.json()["error"])


def test_server_routes(client: TestClient, fake: Any) -> None:
    for path in ("/v2", "/v2/"):
        answer = client.get(path, follow_redirects=False)
        assert answer.status_code == 200
        assert answer.json()["name"] == "fuseline"
        assert "binary_tensor_data" in answer.json()["extensions"]
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True, "live": True}
    fake.is_ready = False
    assert client.get("/v2/health/live").status_code == 200
    answer = client.get("/v2/health/ready")
    assert (answer.status_code, answer.json()) == (503, {"ready": False, "live": True})


@pytest.mark.parametrize("prefix", ["/v2/models/clinic", "/v2/models/clinic/versions/v2"])
def test_model_routes(client: TestClient, fake: Any, prefix: str) -> None:
    version = "v2" if "versions" in prefix else "v1"
    about = client.get(prefix).json()
    assert about["name"] == "clinic"
    assert about["versions"] == (["v2"] if "versions" in prefix else ["v1", "v2"])
    assert {"name": "age", "datatype": "FP32", "shape": [-1]} in about["inputs"]
    assert {"name": "picture", "datatype": "BYTES", "shape": [-1]} in about["inputs"]
    assert {"name": "probabilities", "datatype": "FP64", "shape": [-1, 2]} in about["outputs"]
    assert client.get(prefix + "/ready").json() == {"name": "clinic", "ready": True}
    config = client.get(prefix + "/config").json()
    assert config["input"][0] == {"name": "picture", "data_type": "TYPE_STRING", "dims": [-1], "optional": True}
    stats = client.get(prefix + "/stats").json()["model_stats"]
    assert [s["version"] for s in stats] == (["v2"] if "versions" in prefix else ["v1", "v2"])
    assert stats[0]["inference_count"] == 7
    assert stats[0]["inference_stats"]["compute_infer"] == {"count": 3, "ns": 5_000_000}
    answer = client.post(prefix + "/infer", json=ages(70))
    assert answer.json()["model_version"] == version
    assert answer.json()["model_name"] == "clinic"
    assert "id" not in answer.json()
    assert outputs(answer)["value"] == ["yes"]
    fake.is_ready = False
    assert client.get(prefix + "/ready").status_code == 503


def test_the_index_and_all_statistics(client: TestClient, fake: Any) -> None:
    every = client.get("/v2/repository/index").json()
    assert [(m["name"], m["version"], m["state"]) for m in every] == [
        ("clinic", "v1", "READY"),
        ("clinic", "v2", "READY"),
        ("other", "v1", "READY"),
    ]
    assert client.post("/v2/repository/index").json() == every
    assert len(client.get("/v2/models/stats").json()["model_stats"]) == 3
    fake.is_ready = False
    assert client.post("/v2/repository/index", json={"ready": True}).json() == []
    assert client.post("/v2/repository/index", json={}).json()[0]["state"] == "UNAVAILABLE"
    failed(client.post("/v2/repository/index", json=[]), 400)
    failed(client.post("/v2/repository/index", json={"ready": 1}), 400)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/none", 404),
        ("GET", "/v2/models/none/ready", 404),
        ("GET", "/v2/models/none/config", 404),
        ("GET", "/v2/models/none/stats", 404),
        ("POST", "/v2/models/none/infer", 404),
        ("GET", "/v2/models/clinic/versions/v9", 404),
        ("POST", "/v2/models/clinic/versions/v9/infer", 404),
        ("GET", "/v2/models", 404),
        ("GET", "/v2/nothing", 404),
        ("GET", "/v2/models/clinic/", 404),
        ("POST", "/v2/repository/models/clinic/load", 404),
        ("POST", "/v2/repository/models/clinic/unload", 404),
        ("GET", "/v2/systemsharedmemory/status", 404),
        ("POST", "/v2/cudasharedmemory/region/r/register", 404),
        ("GET", "/v2/trace/setting", 404),
        ("GET", INFER, 405),
        ("DELETE", "/v2/models/clinic", 405),
        ("POST", "/v2", 405),
        ("POST", "/v2/", 405),
        ("PUT", "/v2/health/live", 405),
        ("STRANGE", "/v2/health/live", 405),
        ("STRANGE", "/v2/nothing", 404),
    ],
)
def test_what_is_not_there_says_so(client: TestClient, method: str, path: str, status: int) -> None:
    answer = client.request(method, path, follow_redirects=False)
    failed(answer, status)
    assert (status == 405) == ("allow" in answer.headers)


def test_ids_and_keys_reach_the_call(client: TestClient, fake: Any) -> None:
    answer = client.post(INFER, json=ages(70, id="my id"))
    assert answer.json()["id"] == "my id" == fake.calls[-1].id
    answer = client.post(INFER, json=ages(70, id="straße\n" + "x" * 500))
    assert answer.json()["id"] == "straße\n" + "x" * 500
    assert len(fake.calls[-1].id) == 32
    client.post(INFER, json=ages(70), headers={"X-Request-Id": "from-header"})
    assert fake.calls[-1].id == "from-header"
    assert fake.calls[-1].door == "v2"
    assert client.post(INFER, content=json.dumps(ages(70, id="\ud800"))).json()["id"] == "\ud800"


def test_deadlines_are_the_nearer_of_both(client: TestClient, fake: Any) -> None:
    def left(**sent: Any) -> float:
        assert client.post(INFER, **sent).status_code == 200
        return float(fake.calls[-1].deadline - time.monotonic())

    assert 1.0 < left(json=ages(70), headers={"X-Deadline-Ms": "2000"}) < 2.0
    assert 4.0 < left(json=ages(70, parameters={"timeout": 5_000_000})) < 5.0
    assert 4.0 < left(json=ages(70, parameters={"timeout": "5000000"})) < 5.0
    assert left(json=ages(70, parameters={"timeout": 5_000_000}), headers={"X-Deadline-Ms": "900.5"}) < 0.9005
    client.post(INFER, json=ages(70, parameters={"timeout": 0}))
    assert fake.calls[-1].deadline is None
    for bad in ("0", "-1", "nan", "inf", "soon", ""):
        failed(client.post(INFER, json=ages(70), headers={"X-Deadline-Ms": bad}), 400, "X-Deadline-Ms")
    for timeout in (-1, 1.5, True, "x", [1]):
        failed(client.post(INFER, json=ages(70, parameters={"timeout": timeout})), 400, "timeout")


def test_answers_in_json_hold_null_for_nan(client: TestClient) -> None:
    body = ages(70, None, 30.5)
    body["inputs"].append({"name": "note", "datatype": "BYTES", "shape": [3, 1], "data": [["bad"], [""], ["fine"]]})
    answer = client.post(INFER, json=body)
    assert answer.headers["content-type"] == "application/json"
    out = outputs(answer)
    assert out["value"] == ["", "no", "no"]
    assert out["probabilities"] == [None, None, 0.9, 0.1, 1 - 0.305, 0.305]
    assert out["error"] == ["row 0, column 'note': a bad note (mend it)", "", ""]
    assert json.loads(out["used"][2]) == ["note", "age"]


def test_binary_in_and_out(client: TestClient, fake: Any) -> None:
    picture = InferInput("picture", [2], "BYTES").set_data_from_numpy(np.array([b"\xff\0\x01", b""], dtype=np.object_))
    age = InferInput("age", [2], "FP32").set_data_from_numpy(np.array([70, math.nan], dtype=np.float32))
    body, size = _get_inference_request([picture, age], "r", None, 0, False, False, 0, None, None)
    answer = client.post(INFER, content=body, headers={"Inference-Header-Content-Length": str(size)})
    assert answer.headers["content-type"] == "application/octet-stream"
    header = int(answer.headers["inference-header-content-length"])
    result = InferResult.from_response_body(answer.content, header_length=header)
    assert result.as_numpy("value").tolist() == [b"yes", b"no"]
    assert result.as_numpy("probabilities").tolist() == [[1 - 0.7, 0.7], [0.9, 0.1]]
    assert fake.calls[0].rows[0] == {"picture": b"\xff\0\x01", "age": 70.0}
    assert fake.calls[0].rows[1]["picture"] is None
    wanted = ages(70, outputs=[{"name": "probabilities", "parameters": {"binary_data": True}}, {"name": "value"}])
    answer = client.post(INFER, json=wanted)
    head = json.loads(answer.content[: int(answer.headers["inference-header-content-length"])])
    assert [o["name"] for o in head["outputs"]] == ["probabilities", "value"]
    assert head["outputs"][0]["parameters"] == {"binary_data_size": 16}
    assert head["outputs"][1]["data"] == ["yes"]


@pytest.mark.parametrize(
    ("asked", "used"),
    [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip;q=0.5, deflate", "deflate"),
        ("gzip;q=0", None),
        ("br", None),
        ("gzip;q=x", None),
        ("", None),
    ],
)
def test_bodies_compressed_both_ways(client: TestClient, asked: str, used: str | None) -> None:
    plain = client.post(INFER, json=ages(*[70] * 8), headers={"Accept-Encoding": "identity"}).content
    body = json.dumps(ages(*[70] * 8)).encode()
    for name, pack in (("gzip", gzip.compress), ("deflate", zlib.compress)):
        headers = {"Content-Encoding": name, "Accept-Encoding": asked}
        with client.stream("POST", INFER, content=pack(body), headers=headers) as answer:
            raw = b"".join(answer.iter_raw())
        assert answer.headers.get("content-encoding") == used
        assert int(answer.headers["content-length"]) == len(raw)
        unpack = {"gzip": gzip.decompress, "deflate": zlib.decompress, None: bytes}[used]
        assert unpack(raw) == plain


def test_what_a_caller_may_get_wrong(client: TestClient, fake: Any) -> None:
    failed(client.post(INFER, content=b"{"), 400, "not JSON")
    failed(client.post(INFER), 400)
    failed(client.post(INFER, content=b"[" * 50), 400, "nested")
    failed(client.post(INFER, json={"inputs": [{"name": "agee", "datatype": "FP32", "shape": [1], "data": [1]}]}), 422)
    failed(client.post(INFER, json=ages(70, outputs=[{"name": "valu"}])), 400, "did you mean 'value'")
    failed(client.post(INFER, json=ages(*[1] * 9)), 413)
    failed(client.post(INFER, content=bytes(2**20 + 1)), 413, "larger than 1 MB")
    bomb = gzip.compress(bytes(50 * 2**20), mtime=0)
    failed(client.post(INFER, content=bomb, headers={"Content-Encoding": "gzip"}), 413)
    failed(client.post(INFER, content=b"x", headers={"Content-Encoding": "br"}), 415)
    failed(client.post(INFER, content=b"hello there", headers={"Content-Encoding": "gzip"}), 400, "not gzip")
    failed(client.post(INFER, json=ages(70), headers={"Inference-Header-Content-Length": "-5"}), 400)
    text = failed(client.post("/v2/models/clinc/infer", json=ages(70)), 404, "did you mean 'clinic'")
    assert "\n" not in text
    assert fake.calls == []


@pytest.mark.parametrize("code", [*STATUS, "bad_package", "anything"])
def test_every_code_has_its_status(client: TestClient, fake: Any, code: str) -> None:
    fake.failure = FuselineError(code, "what is wrong", "what to do")
    answer = client.post(INFER, json=ages(70))
    status = STATUS.get(code, 500)
    text = failed(answer, status)
    assert text == ("internal error" if status == 500 else "what is wrong (what to do)")


def test_a_defect_of_ours_shows_nothing_of_itself(
    client: TestClient, fake: Any, caplog: pytest.LogCaptureFixture
) -> None:
    fake.failure = RuntimeError("/secret/path")
    assert failed(client.post(INFER, json=ages(70)), 500) == "internal error"
    assert "/secret/path" in caplog.text


def test_all_rows_bad_is_a_failure_of_the_request(client: TestClient) -> None:
    body = {"inputs": [{"name": "note", "datatype": "BYTES", "shape": [1], "data": ["bad"]}]}
    failed(client.post(INFER, json=body), 422, "a bad note")


def test_a_caller_who_leaves_cancels_the_work(fake: Any, settings: Settings) -> None:
    app = FastAPI()
    app.include_router(router(fake, settings))
    fake.seconds = 30.0
    body = json.dumps(ages(70, id="gone")).encode()
    sent: list[Any] = []

    async def run() -> None:
        messages = asyncio.Queue[dict[str, Any]]()
        messages.put_nowait({"type": "http.request", "body": body})

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": INFER, "raw_path": INFER.encode()}
        scope |= {"query_string": b"", "headers": [], "root_path": "", "scheme": "http", "server": ("test", 80)}
        call = asyncio.create_task(app(scope, messages.get, send))
        while not fake.calls:
            await asyncio.sleep(0.01)
        messages.put_nowait({"type": "http.disconnect"})
        await asyncio.wait_for(call, 5)

    asyncio.run(run())
    assert fake.cancelled == ["gone"]
    assert sent[0]["status"] == 499


def test_openapi_names_every_route(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for end in ("", "/ready", "/config", "/stats", "/infer"):
        assert f"/v2/models/{{model}}{end}" in paths
        assert f"/v2/models/{{model}}/versions/{{version}}{end}" in paths
    infer = paths["/v2/models/{model}/infer"]["post"]
    assert infer["requestBody"]["content"]["application/json"]["schema"]["required"] == ["inputs"]
    assert [p["name"] for p in infer["parameters"]] == ["model"]
    names = [op["operationId"] for path in paths.values() for op in path.values()]
    assert len(names) == len(set(names))


TENSOR = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["age", "note", "picture", "sex", "smoker", "seen", "agee", ""]) | st.text(),
        "datatype": st.sampled_from(["FP32", "FP64", "INT64", "BYTES", "BOOL", "BF16"]) | st.integers(),
        "shape": st.lists(st.integers(-2, 3) | st.integers(), max_size=3) | st.none(),
        "data": st.lists(st.none() | st.integers() | st.floats(allow_nan=False) | st.text() | st.booleans(), max_size=4)
        | st.lists(st.lists(st.integers()), max_size=3)
        | st.integers(),
        "parameters": st.dictionaries(st.sampled_from(["binary_data_size", "shared_memory_region"]), st.integers(0, 9)),
    },
)
REQUEST = st.fixed_dictionaries(
    {"inputs": st.lists(TENSOR, max_size=3)},
    optional={"id": st.text() | st.integers(), "outputs": st.lists(TENSOR, max_size=2), "parameters": TENSOR},
)


@given(
    body=st.binary(max_size=100) | REQUEST.map(lambda r: json.dumps(r).encode()),
    tail=st.binary(max_size=20),
    header=st.none() | st.integers(-2, 300).map(str) | st.just("json"),
    encoding=st.sampled_from(["", "gzip", "deflate", "br"]),
    packed=st.booleans(),
)
@given_settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_whatever_is_sent_is_answered_or_refused(
    client: TestClient, body: bytes, tail: bytes, header: str | None, encoding: str, packed: bool
) -> None:
    headers = {"Content-Encoding": encoding} if encoding else {}
    if header is not None:
        headers["Inference-Header-Content-Length"] = str(len(body)) if header == "json" else header
        body += tail
    if packed and encoding in ("gzip", "deflate"):
        body = gzip.compress(body, mtime=0) if encoding == "gzip" else zlib.compress(body)
    answer = client.post(INFER, content=body, headers=headers)
    assert answer.status_code < 500
    if answer.status_code != 200:
        failed(answer, answer.status_code)
