"""A real server: its start, a package replaced under it, a worker killed, and its end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fuseline.runtime import Answer

WAIT = 120


class Server:
    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process, self.url = process, url

    def ask(self, client: httpx.Client, row: Any) -> httpx.Response:
        return client.post(f"{self.url}/v1/models/clinic/predict", json={"rows": [row]}, timeout=WAIT)

    def workers(self) -> list[int]:
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if b"fuseline.serve.worker" in words and parent == self.process.pid:
                    found.append(int(entry.name))
        return found


@contextlib.contextmanager
def serving(*words: str) -> Iterator[Server]:
    code = "from fuseline.cli import main; main()"
    command = [sys.executable, "-c", code, "serve", *words, "--port", "0", "--threads", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"COLUMNS": "200"})
    lines: list[str] = []
    ready = threading.Event()

    def listen() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            if " the page" in line:
                ready.set()
        ready.set()

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        assert ready.wait(WAIT), "".join(lines)
        page = next((line for line in lines if " the page" in line), None)
        assert page is not None, "".join(lines)
        yield Server(process, page.split()[0].rstrip("/"))
    finally:
        process.kill()
        process.wait()
        thread.join()
        assert process.stderr is not None
        process.stderr.close()
        assert "Traceback" not in "".join(lines), "".join(lines)


@pytest.fixture(scope="module")
def plain(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"age": 61, "sex": "f", "note": "heavy cough"}


def test_a_life(package: Path, other_package: Path, tmp_path: Path, plain: dict[str, Any]) -> None:
    import fuseline

    folder = tmp_path / "clinic.fuse"
    shutil.copytree(package, folder)
    old, new = (
        {p: fuseline.load(p).predict([plain])[0] for p in (package, other_package)}[k] for k in (package, other_package)
    )
    with serving(str(folder), "--watch-seconds", "0.2") as server, httpx.Client() as client:
        assert client.get(f"{server.url}/readyz").text == "ok\n"
        assert answer(server.ask(client, plain)) == old
        _what_is_no_http_is_refused_in_the_same_form(server)
        _replaced_in_place(server, client, folder, other_package, plain, old, new)
        _a_worker_is_killed(server, client, plain, new)
        _the_end(server, client, plain, new)


GARBAGE = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64) + b"\r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\nHost: a\r\nX-Long: " + b"x" * 100_000 + b"\r\n\r\n",
    b"POST /v1/models/clinic/predict HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    b"POST /v1/models/clinic/predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
]


def _what_is_no_http_is_refused_in_the_same_form(server: Server) -> None:
    import socket

    host, _, port = server.url.removeprefix("http://").partition(":")
    for garbage in GARBAGE:
        with socket.create_connection((host, int(port)), timeout=WAIT) as door:
            with contextlib.suppress(OSError):  # it may hang up before all of it is sent
                door.sendall(garbage)
            said = b""
            with contextlib.suppress(ConnectionResetError):
                while part := door.recv(65536):
                    said += part
        if said:
            head, _, body = said.partition(b"\r\n\r\n")
            assert head.splitlines()[0].split()[1] in (b"400", b"431"), garbage[:40]
            assert b"application/json" in head
            assert set(json.loads(body)) >= {"error"}


def answer(reply: httpx.Response) -> Answer:
    assert reply.status_code == 200, reply.text
    return Answer.from_dict(reply.json()["answers"][0])


def _replaced_in_place(
    server: Server, client: httpx.Client, folder: Path, package: Path, row: Any, old: Answer, new: Answer
) -> None:
    """Copied over file by file, as deployments do: the running model may not notice half a package."""
    for member in package.rglob("*"):
        if member.is_file() and member.name != "manifest.json":
            target = folder / member.relative_to(package)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(member.read_bytes())
            assert answer(server.ask(client, row)) == old
    (folder / "manifest.json").write_bytes((package / "manifest.json").read_bytes())
    start = time.monotonic()
    while answer(server.ask(client, row)) != new:
        assert time.monotonic() - start < WAIT
    version = json.loads((package / "manifest.json").read_text())["version"]
    [told] = client.get(f"{server.url}/v1/models").json()["models"]
    assert told["version"] == version


def _a_worker_is_killed(server: Server, client: httpx.Client, row: Any, want: Answer) -> None:
    [worker] = server.workers()
    os.kill(worker, signal.SIGKILL)
    seen = set()
    start = time.monotonic()
    while time.monotonic() - start < WAIT:
        reply = server.ask(client, row)
        seen.add(reply.status_code)
        if reply.status_code == 200:
            break
        assert reply.status_code == 503
        assert "retry-after" in reply.headers
        time.sleep(0.02)
    assert answer(server.ask(client, row)) == want
    assert [worker] != server.workers()


def _the_end(server: Server, client: httpx.Client, row: Any, want: Answer) -> None:
    """SIGTERM: what is in flight is answered, then the process ends by itself."""
    results: list[Any] = []

    def caller() -> None:
        with httpx.Client() as own, contextlib.suppress(httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError):
            while True:
                results.append(server.ask(own, row))
                if results[-1].headers.get("connection") == "close":
                    return

    callers = [threading.Thread(target=caller) for _ in range(4)]
    for thread in callers:
        thread.start()
    while len(results) < 8:
        time.sleep(0.01)
    server.process.send_signal(signal.SIGTERM)
    for thread in callers:
        thread.join(WAIT)
    assert server.process.wait(WAIT) == 0
    for reply in results:  # rows of several callers share batches, and the last bits follow the batch
        assert answer(reply).probabilities == pytest.approx(want.probabilities, abs=1e-5)
    assert sum(r.headers.get("connection") == "close" for r in results) == 4
    assert server.workers() == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing.fuse"], "no package at"),
        (["a/b c=PACKAGE"], "no package at"),
        (["a b=PACKAGE"], "cannot be a model's name"),
        (["--canary", "clinic=PACKAGE:2", "PACKAGE"], "no share between 0 and 1"),
        (["--keys", "no-such-file.json", "PACKAGE"], "no key file"),
    ],
)
def test_what_cannot_be_served_is_said(words: list[str], said: str, package: Path, tmp_path: Path) -> None:
    words = [w.replace("PACKAGE", str(package)) for w in words]
    code = "from fuseline.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "serve", "--port", "0", *words],
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"COLUMNS": "400"},
    )
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_package_that_is_broken_ends_the_start(package: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clinic.fuse"
    shutil.copytree(package, folder)
    with (folder / "weights.safetensors").open("r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(b"12345678")
    code = "from fuseline.cli import main; main()"
    words = [sys.executable, "-c", code, "serve", "--port", "0", str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=WAIT, check=False)
    assert done.returncode == 2, done.stderr
    assert "sha256" in done.stderr
    assert "Traceback" not in done.stderr
