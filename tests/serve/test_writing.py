"""Texts over HTTP: a tiny random language model with a fused prefix, trained, exported, streamed without torch."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import made
import numpy as np
import polars as pl
import pytest
import writers

import fuseline
from fuseline.errors import FuselineError
from fuseline.serve.calls import Event, ModelInfo, Wish
from fuseline.serve.engine import Local
from fuseline.serve.http import make_app
from fuseline.serve.service import Service
from fuseline.serve.settings import Settings

NAME = "writer"
URL = f"/v1/models/{NAME}/generate"
CHAT = "/v1/chat/completions"
STORIES = ("the patient is {}: 咳嗽 and fever", "{}, no change since", "a clear picture of a {} chest")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> fuseline.Run:
    folder = tmp_path_factory.mktemp("writer")
    table = made.make_table(folder, 40)
    frame = pl.read_csv(table)
    texts = [STORIES[i % 3].format("sick" if s == "yes" else "well") for i, s in enumerate(frame["sick"])]
    frame.with_columns(pl.Series("story", texts)).write_csv(table)
    source = writers.language_model(folder / "gpt2", "gpt2", texts)
    recipe = made.recipe(
        table,
        inputs={k: made.INPUTS[k] for k in ("picture", "note", "sound")},
        task={
            "kind": "generation",
            "target": "story",
            "max_length": 24,
            "decoder": {"kind": "prefix", "source": str(source), "tune": "full"},
        },
        split={"kind": "random", "val": 0.2, "test": 0.2},
        fusion={"kind": "concat", "width": 32},
        training={"epochs": 12, "batch_size": 8, "learning_rate": 3e-3, "precision": "float32", "loggers": []},
        evaluation={"bootstrap": 20},
    )
    return fuseline.train(recipe, out=folder / "run" / NAME, quiet=True)


@pytest.fixture(scope="module")
def told(run: fuseline.Run) -> list[tuple[dict[str, Any], str]]:
    """Test rows, media as base64, and what the torch model wrote of them, token by token the likeliest."""
    said = pl.read_parquet(run.folder / "predictions.parquet").filter(pl.col("part") == "test")
    folder = run.folder.parents[1]
    cells = pl.read_csv(folder / "table.csv").to_dicts()
    out = []
    for place, text in zip(said["row"], said["value"], strict=True):
        row = {k: cells[place][k] for k in ("picture", "note", "sound") if cells[place][k] is not None}
        for column in ("picture", "sound"):
            if column in row:
                row[column] = base64.b64encode((folder / row[column]).read_bytes()).decode()
        out.append((row, text))
    return out


def test_the_run_says_what_it_wrote(run: fuseline.Run) -> None:
    scores = run.metrics["parts"]["test"]
    assert set(scores["metrics"]) == {"bleu", "chrf", "rouge1", "rouge2", "rougeL", "exact"}
    assert scores["metrics"]["rougeL"]["low"] is not None
    assert len(run.metrics["degradation"]) == 7
    parity = json.loads((run.package / "parity.json").read_text())
    assert parity["by_output"].keys() == {"ids", "log_chances", "embedding"}
    assert parity["identical_answers"] == parity["rows"], "token by token"
    assert (run.package / "step.onnx").stat().st_size < 300_000, "its weights are those of the other graph"
    assert (run.package / "tokenizer.json").is_file()
    assert "tokenizer" not in json.loads((run.package / "task.json").read_text())["state"]
    page = (run.folder / "report.html").read_text()
    assert "Texts" in page
    assert "咳嗽" in page
    again = fuseline.evaluate(run.package, run.folder.parents[1] / "table.csv", bootstrap=0, subsets=False, quiet=True)
    assert again["parts"]["test"]["rows"] == 40


BLOCK = """
import sys
for name in ("torch", "transformers", "onnx", "peft", "safetensors"):
    sys.modules[name] = None
"""


@pytest.fixture(scope="module")
def url(run: fuseline.Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of its own process, with a worker, in which nothing of training can be imported."""
    site = tmp_path_factory.mktemp("site")
    (site / "sitecustomize.py").write_text(BLOCK)
    path = os.pathsep.join([str(site), *filter(None, sys.path)])
    words = ["serve", f"{NAME}={run.package}", "--port", "0"]
    command = [sys.executable, "-c", "from fuseline.cli import main; main()", *words]
    environment = os.environ | {"COLUMNS": "200", "PYTHONPATH": path}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if " the page" in line:
            break
    else:
        raise AssertionError("".join(lines))
    yield lines[-1].split()[0].rstrip("/")
    process.send_signal(signal.SIGTERM)
    process.stderr.close()
    process.wait(30)


def events(lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    name = ""
    for line in lines:
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            yield name, line[6:]
            name = ""


def test_streamed_without_torch_as_torch_wrote_it(url: str, told: list[tuple[dict[str, Any], str]]) -> None:
    assert len({text for _, text in told}) > 1, "one text for every row would prove nothing"
    with httpx.Client(base_url=url, timeout=60) as client:
        for row, text in told:
            with client.stream("POST", URL, json={"row": row, "stream": True}) as reply:
                assert reply.status_code == 200
                assert reply.headers["content-type"].startswith("text/event-stream")
                found = list(events(reply.iter_lines()))
            assert [name for name, _ in found[:-1]] == [""] * (len(found) - 1)
            pieces = [json.loads(data)["text"] for _, data in found[:-1]]
            assert "".join(pieces) == text
            assert len(pieces) > 1, "it came piece by piece"
            last = json.loads(found[-1][1])
            assert found[-1][0] == "end"
            assert last["answer"]["value"] == text
            assert set(last["answer"]["used"]) == set(row)
            whole = client.post(URL, json={"row": row}).json()
            assert whole["answer"] == last["answer"]
            [predicted] = client.post(f"/v1/models/{NAME}/predict", json={"rows": [row]}).json()["answers"]
            assert predicted["value"] == text


def parts(row: dict[str, Any]) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    if "note" in row:
        out.append({"type": "text", "text": row["note"]})
    if "picture" in row:
        out.append({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{row['picture']}"}})
    if "sound" in row:
        out.append({"type": "input_audio", "input_audio": {"data": row["sound"], "format": "wav"}})
    return out


def test_chat_completions_as_a_client_of_openai_speaks(url: str, told: list[tuple[dict[str, Any], str]]) -> None:
    with httpx.Client(base_url=url, timeout=60) as client:
        listed = client.get("/v1/models").json()
        assert (listed["object"], [m["id"] for m in listed["data"]]) == ("list", [NAME])
        for row, text in told[:3]:
            messages = [
                {"role": "system", "content": "Describe."},
                {"role": "user", "content": "an earlier question"},
                {"role": "assistant", "content": "an earlier answer"},
                {"role": "user", "content": parts(row)},
            ]
            body = {"model": NAME, "messages": messages, "temperature": 0}
            said = client.post(CHAT, json=body).json()
            [choice] = said["choices"]
            assert (said["object"], choice["message"]["role"]) == ("chat.completion", "assistant")
            assert choice["message"]["content"] == text
            assert choice["finish_reason"] in ("stop", "length")
            assert said["usage"]["completion_tokens"] == said["usage"]["total_tokens"] > 0
            assert set(said["fuseline"]["used"]) == set(row)
            more = {"stream": True, "stream_options": {"include_usage": True}}
            with client.stream("POST", CHAT, json={**body, **more}) as reply:
                found = [data for _, data in events(reply.iter_lines())]
            assert found[-1] == "[DONE]"
            chunks = [json.loads(data) for data in found[:-1]]
            assert {c["object"] for c in chunks} == {"chat.completion.chunk"}
            assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
            assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks[:-1]) == text
            assert [c["choices"][0]["finish_reason"] for c in chunks[:-1]][-1] == choice["finish_reason"]
            assert chunks[-1]["usage"] == said["usage"]


class Watch:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.seen: list[Event] = []

    def wants(self, call: Any) -> bool:
        return True

    def loaded(self, info: ModelInfo) -> None: ...

    def unloaded(self, model: str, version: str) -> None: ...

    def ended(self, event: Event) -> None:
        self.seen.append(event)

    def status(self) -> dict[str, Any]:
        return {}


Talk = Callable[[Callable[[httpx.AsyncClient, Service, Watch], Awaitable[None]]], None]


@pytest.fixture
def talk(run: fuseline.Run) -> Callable[..., None]:
    """A conversation with an application in this process."""

    @asynccontextmanager
    async def opened(**changes: Any) -> AsyncIterator[tuple[Service, Watch]]:
        settings, watch = Settings(**{"objective_ms": 60_000, **changes}), Watch()
        service = Service(Local(settings, threads=1), settings, {"watch": watch})
        await service.load(run.package, NAME)
        try:
            yield service, watch
        finally:
            await service.close()

    def go(conversation: Callable[..., Awaitable[None]], **changes: Any) -> None:
        async def inner() -> None:
            async with opened(**changes) as (service, watch):
                transport = httpx.ASGITransport(make_app(service, service.settings), raise_app_exceptions=False)
                async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
                    await conversation(client, service, watch)

        asyncio.run(inner())

    return go


def test_options_change_the_text_and_seeds_repeat_it(talk: Any, told: list[tuple[dict[str, Any], str]]) -> None:
    row, text = told[0]

    async def conversation(client: httpx.AsyncClient, service: Service, watch: Watch) -> None:
        async def ask(**more: Any) -> dict[str, Any]:
            reply = await client.post(URL, json={"row": row, **more})
            assert reply.status_code == 200, reply.text
            return reply.json()["answer"]

        hot = [await ask(decoding={"strategy": "sample", "temperature": 3.0, "seed": s}) for s in (1, 1, 2)]
        assert hot[0] == hot[1] != hot[2]
        cold = await ask(decoding={"strategy": "sample", "top_k": 1})
        assert cold["value"] == (await ask(decoding={"strategy": "beam", "beams": 1}))["value"] == text
        short = await ask(decoding={"max_tokens": 3})
        assert (short["details"]["tokens"], short["details"]["finish"]) == (3, "length")
        assert text.startswith(short["value"])
        stop = text[4:7]
        assert (await ask(stop=[stop, "never there"]))["value"] == text[: text.index(stop)]
        chat = {"model": NAME, "messages": [{"role": "user", "content": parts(row)}]}
        for more in ({"seed": 1, "temperature": 1.5}, {"top_p": 0.5}, {"max_tokens": 2}, {"stop": stop}, {"n": 1}):
            assert (await client.post(CHAT, json={**chat, **more})).status_code == 200, more
        last = watch.seen[-1]
        assert (last.code, last.call.model) == ("ok", NAME)
        assert last.rows[0].stats
        assert last.rows[0].embedding
        nothing = (await client.post(URL, json={"row": {}})).json()["answer"]
        assert (nothing["used"], nothing["absent"]) == ([], ["picture", "note", "sound"])

    talk(conversation)


REFUSED: list[tuple[str, dict[str, Any], int]] = [
    (URL, {"rows": []}, 400),
    (URL, {"row": {}, "decoding": {"beams": 0}}, 400),
    (URL, {"row": {}, "decoding": {"tempo": 1}}, 400),
    (URL, {"row": {}, "stop": ["a"] * 9}, 400),
    (URL, {"row": {}, "stream": "yes"}, 400),
    (URL, {"row": {"picture": "bm8gcGljdHVyZQ=="}, "stream": True}, 422),
    (URL, {"row": {"picture": "/etc/passwd"}}, 422),
    ("/v1/models/nobody/generate", {"row": {}}, 404),
    (CHAT, {"messages": []}, 400),
    (CHAT, {"model": NAME, "messages": []}, 400),
    (CHAT, {"model": "nobody", "messages": [{"role": "user", "content": "a"}]}, 404),
    (CHAT, {"model": NAME, "messages": [{"role": "user", "content": "a"}], "n": 2}, 400),
    (CHAT, {"model": NAME, "messages": [{"role": "user", "content": "a"}], "temprature": 1}, 400),
    (CHAT, {"model": NAME, "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}] * 2}]}, 400),
    (CHAT, {"model": NAME, "messages": [{"role": "user", "content": [{"type": "file"}]}]}, 400),
]
ADDRESSES = ("https://example.org/x.png", "file:///etc/passwd", "/etc/passwd", "data")


def test_refusals(talk: Any) -> None:
    async def conversation(client: httpx.AsyncClient, service: Service, watch: Watch) -> None:
        for path, body, status in REFUSED:
            reply = await client.post(path, json=body)
            assert reply.status_code == status, reply.text
            assert reply.json()["code"]
            assert watch.seen[-1].code == reply.json()["code"]
        for address in ADDRESSES:
            content = [{"type": "image_url", "image_url": {"url": address}}]
            body = {"model": NAME, "messages": [{"role": "user", "content": content}]}
            reply = await client.post(CHAT, json=body)
            assert reply.status_code == 400
            assert "no URL is fetched" in reply.json()["error"]

    talk(conversation)


def counted(service: Service, seconds: float = 0.0) -> list[int]:
    """Steps that the model takes from here on; each takes `seconds` longer."""
    import time

    [scorer] = service.engine._scorers.values()  # type: ignore[attr-defined]
    backend: Any = scorer.predictor.backend
    real, taken = backend.steps, []

    def step(ids: np.ndarray, state: Any) -> Any:
        taken.append(len(ids))
        time.sleep(seconds)
        return real(ids, state)

    backend.steps = step
    return taken


def test_a_caller_who_hangs_up_stops_the_writing(talk: Any) -> None:
    """Streamed and not: after two steps the caller goes, and soon nothing is computed any more."""

    async def conversation(client: httpx.AsyncClient, service: Service, watch: Watch) -> None:
        app = make_app(service, service.settings)
        for stream, strategy in ((True, "greedy"), (False, "greedy"), (True, "beam")):
            how = {"strategy": strategy, "no_repeat": 1}
            taken = counted(service, 0.05)
            body = json.dumps({"row": {}, "stream": stream, "decoding": how}).encode()
            sent = [{"type": "http.request", "body": body, "more_body": False}]

            async def receive(sent: Any = sent, taken: Any = taken) -> Any:
                if sent:
                    return sent.pop()
                while len(taken) < 2:
                    await asyncio.sleep(0.005)
                return {"type": "http.disconnect"}

            async def send(message: Any) -> None: ...

            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            scope = {"type": "http", "method": "POST", "path": URL, "raw_path": URL.encode(), "query_string": b""}
            await app({**scope, "headers": headers, "http_version": "1.1", "scheme": "http"}, receive, send)
            await asyncio.sleep(0.4)
            assert 2 <= len(taken) <= 4
            assert watch.seen[-1].code == "cancelled"
            [gauge] = service.gauges()
            assert gauge.waiting_rows == 0

    talk(conversation)


def test_texts_take_turns_and_too_many_are_refused(talk: Any) -> None:
    async def conversation(client: httpx.AsyncClient, service: Service, watch: Watch) -> None:
        counted(service, 0.02)
        row = {"note": "heavy cough"}
        asked = [client.post(URL, json={"row": row, "decoding": {"no_repeat": 1}}) for _ in range(3)]
        replies = await asyncio.gather(*asked)
        assert sorted(r.status_code for r in replies) == [200, 200, 429]
        assert all("retry-after" in r.headers for r in replies if r.status_code == 429)

    talk(conversation, max_streams=2)


def test_a_deadline_ends_a_text(talk: Any) -> None:
    async def conversation(client: httpx.AsyncClient, service: Service, watch: Watch) -> None:
        counted(service, 0.1)
        body = {"row": {}, "decoding": {"no_repeat": 1}}
        reply = await client.post(URL, json=body, headers={"X-Deadline-Ms": "250"})
        assert reply.status_code == 504
        reply = await client.post(URL, json={**body, "stream": True}, headers={"X-Deadline-Ms": "250"})
        found = list(events(iter(reply.text.split("\n"))))
        assert found[-1][0] == "error"
        assert json.loads(found[-1][1])["code"] == "deadline"

    talk(conversation)


def test_a_package_that_writes_nothing_says_so(package: Path) -> None:
    async def go() -> None:
        settings = Settings()
        service = Service(Local(settings, threads=1), settings)
        await service.load(package, "clinic")
        transport = httpx.ASGITransport(make_app(service, settings), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            for path, body in (
                ("/v1/models/clinic/generate", {"row": {}}),
                (CHAT, {"model": "clinic", "messages": [{"role": "user", "content": "a"}]}),
            ):
                reply = await client.post(path, json=body)
                assert reply.status_code == 400
                assert "writes no texts" in reply.json()["error"]
        pieces = service.engine.stream(
            ("clinic", service.info("clinic").version), {}, Wish(), deadline=1e12, seen=False
        )
        with pytest.raises(FuselineError, match="writes no texts"):
            await anext(pieces)
        await service.close()

    asyncio.run(go())
