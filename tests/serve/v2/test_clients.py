"""Triton's own clients against a real server and a real package: the predictor's answers, bit for bit."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import math
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
import uvicorn
from tritonclient.utils import InferenceServerException

from fuseline.runtime import Answer
from fuseline.serve.http import make_app
from fuseline.serve.settings import Settings
from fuseline.serve.v2 import grpc

Row = dict[str, Any]
BYTES = ("picture", "note", "sound", "sex", "seen")
MEDIA = ("picture", "sound")


@dataclass
class Served:
    http: str
    grpc: str


@pytest.fixture(scope="module")
def server(open_service: Any) -> Iterator[Served]:
    """HTTP and gRPC on free ports of the loopback interface, on a loop of its own."""
    started: Future[Served] = Future()
    settings = Settings(max_rows=16, grpc_port=0)

    async def run() -> None:
        async with open_service() as service:
            door = socket.create_server(("127.0.0.1", 0))
            config = uvicorn.Config(make_app(service, settings), lifespan="off", log_config=None, ws="none")
            http = uvicorn.Server(config)
            listening = await grpc.start(service, settings)
            stop = asyncio.Event()
            stopping.append(lambda: loop[0].call_soon_threadsafe(stop.set))
            loop.append(asyncio.get_running_loop())
            serving = asyncio.create_task(http.serve([door]))
            started.set_result(Served(f"127.0.0.1:{door.getsockname()[1]}", f"127.0.0.1:{listening.port}"))
            await stop.wait()
            http.should_exit = True
            await serving
            await listening.stop(1)

    def main() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    stopping: list[Any] = []
    loop: list[asyncio.AbstractEventLoop] = []
    thread = threading.Thread(target=main)
    thread.start()
    yield started.result(60)
    stopping[0]()
    thread.join(20)
    assert not thread.is_alive()


@pytest.fixture(params=["http", "grpc"])
def triton(request: pytest.FixtureRequest, server: Served) -> Iterator[tuple[Any, Any]]:
    """The module and a client of either door."""
    module = {"http": tritonclient.http, "grpc": tritonclient.grpc}[request.param]
    with connected(module, getattr(server, request.param)) as client:
        yield module, client


@contextlib.contextmanager
def connected(module: Any, url: str, **options: Any) -> Iterator[Any]:
    client = module.InferenceServerClient(url, **options)
    try:
        yield client
    finally:
        client.close()
        client.close = lambda: None  # its __del__ closes again, and fails where another thread collects it


def array_of(name: str, cells: list[Any], *, binary: bool = True) -> tuple[str, np.ndarray]:
    """Datatype and array of a column's cells, None where absent."""
    if name in BYTES:
        raw = [b"" if c is None else c if isinstance(c, bytes) else str(c).encode() for c in cells]
        if not binary and name in MEDIA:
            raw = [base64.b64encode(c) for c in raw]
        return "BYTES", np.array(raw, dtype=np.object_)
    if name == "smoker":
        return "BOOL", np.array(cells, dtype=bool)
    return "FP32", np.array([math.nan if c is None else c for c in cells], dtype=np.float32)


def inputs_of(module: Any, rows: list[Row], *, binary: bool = True) -> list[Any]:
    """A tensor for every column that some row has. Booleans know no absence, so those go as BYTES where one lacks."""
    out = []
    for name in dict.fromkeys(k for row in rows for k in row):
        cells = [row.get(name) for row in rows]
        datatype, array = array_of(name, cells, binary=binary)
        if name == "smoker" and None in cells:
            raw = [b"" if c is None else str(c).lower().encode() for c in cells]
            datatype, array = "BYTES", np.array(raw, dtype=np.object_)
        tensor = module.InferInput(name, [len(rows)], datatype)
        options = {} if module is tritonclient.grpc else {"binary_data": binary or name == "age"}
        out.append(tensor.set_data_from_numpy(array, **options))
    return out


def same(result: Any, expected: list[Answer], *, exact: bool = True) -> None:
    probabilities = np.array([list((a.probabilities or {}).values()) for a in expected])
    got = result.as_numpy("probabilities")
    assert got.dtype == np.float64
    if exact:
        assert got.tobytes() == probabilities.tobytes()
    else:
        np.testing.assert_allclose(got, probabilities, rtol=0, atol=1e-6)
    texts = {n: [e if isinstance(e, str) else e.decode() for e in result.as_numpy(n)] for n in ("value", "error")}
    assert texts["value"] == [a.value for a in expected]
    assert texts["error"] == [""] * len(expected)
    for name in ("used", "absent"):
        assert [tuple(json.loads(t)) for t in result.as_numpy(name)] == [getattr(a, name) for a in expected]


def test_every_row_alone(triton: tuple[Any, Any], rows: list[Row], answers: list[Answer]) -> None:
    module, client = triton
    for row, answer in zip(rows, answers, strict=True):
        if row:
            same(client.infer("clinic", inputs_of(module, [row])), [answer])


def test_all_rows_together(triton: tuple[Any, Any], rows: list[Row], answers: list[Answer]) -> None:
    module, client = triton
    same(client.infer("clinic", inputs_of(module, rows)), answers, exact=False)


def test_json_both_ways(server: Served, rows: list[Row], answers: list[Answer]) -> None:
    module = tritonclient.http
    names = ("value", "probabilities", "error", "used", "absent")
    outputs = [module.InferRequestedOutput(n, binary_data=False) for n in names]
    with connected(module, server.http) as client:
        for row, answer in zip(rows, answers, strict=True):
            if row:
                same(client.infer("clinic", inputs_of(module, [row], binary=False), outputs=outputs), [answer])


@pytest.mark.parametrize("packing", ["gzip", "deflate"])
def test_compressed_both_ways(server: Served, rows: list[Row], answers: list[Answer], packing: str) -> None:
    module = tritonclient.http
    options = {"request_compression_algorithm": packing, "response_compression_algorithm": packing}
    with connected(module, server.http) as client:
        same(client.infer("clinic", inputs_of(module, rows), **options), answers, exact=False)
        same(client.infer("clinic", inputs_of(module, rows[:1]), **options), answers[:1])


def test_many_at_once_get_their_own_answers(server: Served, rows: list[Row], answers: list[Answer]) -> None:
    module = tritonclient.http
    some = [i for i, row in enumerate(rows) if row] * 5
    with connected(module, server.http, concurrency=8) as client:
        waiting = [client.async_infer("clinic", inputs_of(module, [rows[i]]), request_id=f"r{i}") for i in some]
        for i, each in zip(some, waiting, strict=True):
            result = each.get_result()
            assert result.get_response()["id"] == f"r{i}"
            same(result, [answers[i]], exact=False)


def test_one_bad_row_leaves_the_others(triton: tuple[Any, Any], rows: list[Row], answers: list[Answer]) -> None:
    module, client = triton
    whole = [i for i, row in enumerate(rows) if "note" in row and "picture" in row][:2]
    good = [rows[i] for i in whole]
    broken = [good[0], {"picture": b"no picture"}, {"note": b"\xff\xfe"}, good[1]]
    result = client.infer("clinic", inputs_of(module, broken))
    probabilities = result.as_numpy("probabilities")
    for place, i in ((0, whole[0]), (3, whole[1])):
        expected = list((answers[i].probabilities or {}).values())
        np.testing.assert_allclose(probabilities[place], expected, rtol=0, atol=1e-6)
    assert np.isnan(probabilities[1:3]).all()
    errors = [e.decode() for e in result.as_numpy("error")]
    assert errors[0] == errors[3] == ""
    assert "row 1, column 'picture'" in errors[1]
    assert "row 2, column 'note'" in errors[2]
    assert [v.decode() for v in result.as_numpy("value")][1:3] == ["", ""]


def test_refusals_reach_the_client(triton: tuple[Any, Any], rows: list[Row]) -> None:
    module, client = triton
    with pytest.raises(InferenceServerException, match="no model"):
        client.infer("nothing", inputs_of(module, rows[:1]))
    with pytest.raises(InferenceServerException, match="at most 16"):
        client.infer("clinic", inputs_of(module, [{"age": 1.0}] * 17))
    with pytest.raises(InferenceServerException, match="did you mean 'note'"):
        client.infer("clinic", [_text(module, "notes", b"x")])
    with pytest.raises(InferenceServerException, match="picture"):
        client.infer("clinic", [_text(module, "picture", b"no picture")])


def _text(module: Any, name: str, cell: bytes) -> Any:
    return module.InferInput(name, [1], "BYTES").set_data_from_numpy(np.array([cell], dtype=np.object_))


def test_what_the_client_asks_beside(triton: tuple[Any, Any]) -> None:
    _, client = triton
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("clinic")
    options = {} if isinstance(client, tritonclient.http.InferenceServerClient) else {"as_json": True}
    metadata = client.get_model_metadata("clinic", **options)
    assert [t["name"] for t in metadata["inputs"]] == ["picture", "note", "sound", "age", "sex", "smoker", "seen"]
    (version,) = metadata["versions"]
    assert client.is_model_ready("clinic", version)
    assert client.get_model_config("clinic", version, **options)
    stats = client.get_inference_statistics("clinic", **options)["model_stats"][0]
    assert int(stats["inference_count"]) > 0
    assert int(stats["inference_stats"]["compute_infer"]["ns"]) > 0
    index = client.get_model_repository_index(**options)
    assert (index if isinstance(index, list) else index["models"])[0]["state"] == "READY"


def test_plain_json_as_curl_sends_it(server: Served, rows: list[Row], answers: list[Answer]) -> None:
    i = next(i for i, row in enumerate(rows) if "picture" in row and "age" in row)
    inputs = []
    for name, cell in rows[i].items():
        plain = base64.b64encode(cell).decode() if isinstance(cell, bytes) else cell
        datatype = {"age": "FP64", "smoker": "BOOL"}.get(name, "BYTES")
        inputs.append({"name": name, "datatype": datatype, "shape": [1, 1], "data": [[plain]]})
    request = urllib.request.Request(
        f"http://{server.http}/v2/models/clinic/infer",
        data=json.dumps({"id": "curl", "inputs": inputs}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=20) as response:
        assert response.headers["content-type"] == "application/json"
        answer = json.load(response)
    out = {o["name"]: o["data"] for o in answer["outputs"]}
    assert answer["id"] == "curl"
    assert out["value"] == [answers[i].value]
    assert out["probabilities"] == list((answers[i].probabilities or {}).values())


@pytest.mark.parametrize(("path", "status"), [("/v2/models/none", 404), ("/v2/none", 404), ("/v2/health/live/", 404)])
def test_failures_through_all_doors(server: Served, path: str, status: int) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"http://{server.http}{path}", timeout=20)
    with caught.value as error:
        assert error.code == status
        assert error.headers["content-type"] == "application/json"
        assert list(json.load(error)) == ["error"]
