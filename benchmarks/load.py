"""A bounded load generator on loopback: raw HTTP/1.1 over kept connections, so that the caller costs little beside what
it measures. And a server of ours as a process, with its memory."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Got:
    """One answered request. `status` 0: the connection ended without an answer."""

    status: int
    seconds: float
    body: bytes = b""
    closing: bool = False
    refused: bool = False
    """nobody listened: the request never reached a server"""

    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    """One kept connection. Reconnects where the server closed it."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> Got:
        start = time.perf_counter()
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection(self.host, self.port)
        except OSError:
            return Got(0, time.perf_counter() - start, refused=True)
        reader, writer = self._streams
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.split(b"\r\n")
            headers = {k.lower(): v.strip() for k, _, v in (line.partition(b":") for line in lines[1:] if line)}
            body = await reader.readexactly(int(headers.get(b"content-length", b"0")))
        except (OSError, asyncio.IncompleteReadError):
            self.close()
            return Got(0, time.perf_counter() - start)
        closing = headers.get(b"connection", b"").lower() == b"close"
        if closing:
            self.close()
        return Got(int(lines[0].split()[1]), time.perf_counter() - start, body, closing)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def post(path: str, data: Any, *, headers: dict[str, str] | None = None) -> bytes:
    """One request as bytes, ready to be sent again and again."""
    body = data if isinstance(data, bytes) else json.dumps(data).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: here", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines += [f"{k}: {v}" for k, v in (headers or {}).items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@dataclass
class Server:
    process: subprocess.Popen[str]
    host: str
    port: int
    admin: int
    started: float
    """seconds from the start of the process to ready"""

    def pids(self) -> list[int]:
        """The front's, then the workers'."""
        out = [self.process.pid]
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError, IndexError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == self.process.pid:
                    out.append(int(entry.name))
        return out

    def rss(self) -> float:
        """MB of all its processes, shared pages counted once a process (PSS where the kernel tells it)."""
        total = 0.0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
        return total


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def server(*words: str, port: int | None = None, admin: bool = False) -> Iterator[Server]:
    """`fuseline serve` as a process; ended with SIGTERM."""
    chosen, extra, door = port or free_port(), [], 0
    if admin:
        door = free_port()
        extra = ["--admin-port", str(door)]
    start = time.perf_counter()
    command = [sys.executable, "-c", "from fuseline.cli import main; main()", "serve", *words, "--port", str(chosen)]
    process = subprocess.Popen(
        [*command, *extra], stderr=subprocess.PIPE, text=True, env=os.environ | {"COLUMNS": "300"}
    )
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if " the page" in line:
            break
    else:
        raise RuntimeError("".join(lines))
    import threading

    threading.Thread(target=_drain, args=(process.stderr,), daemon=True).start()
    running = Server(process, "127.0.0.1", chosen, door, time.perf_counter() - start)
    try:
        yield running
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def _drain(stream: Any) -> None:
    for line in stream:
        print("server:", line.rstrip(), file=sys.stderr)


def quantile(values: list[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else float("nan")
