"""A package that the main tests trained is served here, on a machine without torch, from the installed wheel."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

TRAINING = ("torch", "transformers", "pytorch_lightning", "peft", "sklearn", "scipy", "matplotlib", "jinja2", "onnx")
ROOMS = (
    "serve.run",
    "serve.http",
    "serve.v2.grpc",
    "monitor.metrics",
    "monitor.watcher",
    "monitor.recorder",
    "deploy",
    "cli",
)


@pytest.mark.parametrize("module", TRAINING)
def test_the_serving_extra_brings_no_training_library(module: str) -> None:
    assert importlib.util.find_spec(module) is None


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import(room: str) -> None:
    code = f"import fuseline.{room}, sys; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def handed_over() -> Path:
    named = os.environ.get("FUSELINE_TEST_PACKAGE")
    if not named:
        pytest.skip("FUSELINE_TEST_PACKAGE names no package: run `make test`, whose main tests make one")
    folder = Path(named)
    assert (folder / "model.fuse").is_dir(), f"{folder} holds no package: the main tests should have made it"
    return folder


@pytest.fixture(scope="module")
def url(handed_over: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("log")
    words = ["serve", f"clinic={handed_over / 'model.fuse'}", "--port", "0", "--record", str(log)]
    command = [sys.executable, "-c", "from fuseline.cli import main; main()", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"COLUMNS": "200"})
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
    assert process.wait(60) == 0
    assert list(log.glob("**/*.parquet")), "the log is written at the end"


def ask(url: str, body: Any = None) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        return bytes(reply.read())


def test_the_page_and_its_parts(url: str) -> None:
    page = ask(f"{url}/").decode()
    assert "<!doctype html>" in page.lower()
    for part in ("/console/main.js", "/console/console.css"):
        assert len(ask(url + part)) > 500


def test_the_same_answers(url: str, handed_over: Path) -> None:
    said = json.loads((handed_over / "answers.json").read_text(encoding="utf-8"))
    for row, want in zip(said["rows"], said["answers"], strict=True):
        cells = dict(row)
        for column, value in row.items():
            if value and (handed_over / str(value)).is_file():
                cells[column] = base64.b64encode((handed_over / value).read_bytes()).decode()
        [got] = json.loads(ask(f"{url}/v1/models/clinic/predict", {"rows": [cells]}))["answers"]
        assert got["used"] == want["used"]
        assert got["probabilities"] == pytest.approx(want["probabilities"], abs=1e-4)


def test_the_protocol_and_the_metrics(url: str) -> None:
    assert json.loads(ask(f"{url}/v2/models/clinic"))["name"] == "clinic"
    assert b"fuseline_requests_total" in ask(f"{url}/metrics")
