"""The service as a Ray Serve deployment: Ray is started once, in a process of its own, and ended with SIGTERM."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fuseline.errors import FuselineError
from fuseline.runtime import Answer
from fuseline.serve.settings import Settings
from fuseline.serve.specs import spec_of

pytest.importorskip("ray", reason="the extra `ray` is not installed")

CODE = """
import contextlib
import functools
import sys
import types
from fuseline.monitor.recorder import Recorder
from fuseline.serve.ray import Scale, serve_on_ray
from fuseline.serve.specs import spec_of
from fuseline.serve.settings import Settings

@contextlib.contextmanager
def recording(folder):
    recorder = Recorder(folder, share=1.0)
    yield types.SimpleNamespace(observers={"recorder": recorder}, update=lambda gauges: None)
    recorder.close()

serve_on_ray(
    [spec_of(sys.argv[1])],
    Settings(port=0, deadline_ms=120_000, objective_ms=60_000),
    Scale(max_replicas=1, cpus=0.5),
    watching=functools.partial(recording, sys.argv[2]),
    address="local",
    ready=lambda infos, port: print("ready", infos[0].name, port, flush=True),
)
print("ended", flush=True)
"""


class Running:
    def __init__(self, process: subprocess.Popen[str], port: int, log: Path) -> None:
        self.process, self.port, self.log = process, port, log

    def ask(self, path: str, data: Any = None, **headers: str) -> tuple[int, Any, dict[str, list[str]]]:
        body = None if data is None else json.dumps(data).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", body, headers)
        request.add_header("content-type", "application/json")
        try:
            answer = urllib.request.urlopen(request, timeout=120)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            text = answer.read()
            found = {k.lower(): answer.headers.get_all(k) for k in answer.headers}
        return answer.status, json.loads(text) if found["content-type"] == ["application/json"] else text, found


@pytest.fixture(scope="module")
def running(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    log = tmp_path_factory.mktemp("ray") / "log"
    command = [sys.executable, "-c", CODE, f"clinic={package}", str(log)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    words: list[str] = []
    for line in process.stdout:
        if line.startswith("ready"):
            words = line.split()
            break
    assert words[:2] == ["ready", "clinic"]
    try:
        yield Running(process, int(words[2]), log)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def plain(row: dict[str, Any]) -> dict[str, Any]:
    return {k: base64.b64encode(v).decode() if isinstance(v, bytes) else v for k, v in row.items()}


def test_the_answers_are_the_predictors(running: Running, rows: list[dict[str, Any]], answers: list[Answer]) -> None:
    for row, answer in zip(rows[:4], answers[:4], strict=True):
        status, body, headers = running.ask(
            "/v1/models/clinic/predict", {"rows": [plain(row)]}, **{"X-Request-Id": "mine"}
        )
        assert status == 200, body
        assert Answer.from_dict(body["answers"][0]) == answer
        assert body["request_id"] == "mine"
        assert headers["x-request-id"] == ["mine"]


def test_it_is_ready_and_speaks_v2_and_says_no_in_the_services_own_words(running: Running) -> None:
    assert running.ask("/readyz")[:2] == (200, b"ok\n")
    assert running.ask("/v2/models/clinic/ready")[0] == 200
    status, body, _ = running.ask("/v1/models/clinik/predict", {"rows": [{}]})
    assert (status, body["code"]) == (404, "unknown_model")
    assert "clinic" in body["hint"]
    assert running.ask("/metrics")[0] == 404


def test_observers_live_in_the_replica(running: Running) -> None:
    status, body, _ = running.ask("/v1/status")
    assert status == 200
    assert body["observers"]["recorder"]["share"] == 1.0


def test_sigterm_ends_it_and_everything_that_it_started(running: Running) -> None:
    group = _children(running.process.pid)
    assert len(group) > 3  # Ray's own and a replica
    running.process.send_signal(signal.SIGTERM)
    assert running.process.stdout is not None
    assert running.process.stdout.read().splitlines()[-1:] == ["ended"]
    assert running.process.wait(60) == 0
    until = time.monotonic() + 20
    while left := [pid for pid in group if _runs(pid)]:
        assert time.monotonic() < until, left
        time.sleep(0.2)
    # The observers were closed: what they held is written.
    assert pl.read_parquet(running.log / "*.parquet").height == 4


def _children(pid: int) -> list[int]:
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _runs(int(entry.name)):
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found, new = [], [pid]
    while new:
        new = [child for child, parent in parents.items() if parent in new]
        found += new
    return found


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_what_cannot_be_is_said_before_ray_is_started(package: Path, tmp_path: Path) -> None:
    from fuseline.serve.ray import Scale, on_ray

    with (
        pytest.raises(FuselineError, match="fewer replicas"),
        on_ray([spec_of(f"clinic={package}")], Settings(port=0), Scale(min_replicas=3, max_replicas=2)),
    ):
        pass
    broken = tmp_path / "broken.fuse"
    broken.mkdir()
    (broken / "manifest.json").write_text('{"name": "broken", "format": 1, "members": {"a": {}}}')
    with pytest.raises(FuselineError, match="missing"), on_ray([spec_of(str(broken))], Settings(port=0), Scale()):
        pass
