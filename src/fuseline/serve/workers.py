"""Worker processes behind the engine's promise: a crash of one costs the requests that were inside it, and no more."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fuseline.errors import FuselineError
from fuseline.explain import Explanation, Options
from fuseline.runtime import Answer
from fuseline.runtime.backend import cpu_quota
from fuseline.serve import frames
from fuseline.serve.calls import ModelInfo, Row, RowSeen, Wish
from fuseline.serve.engine import Key
from fuseline.serve.scorer import Scored
from fuseline.serve.settings import Settings

log = logging.getLogger(__name__)

MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TRIM_THRESHOLD_": str(64 * 2**20),
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
}
"""The C library keeps freed memory for every thread, and activations of every shape pass through: give it back."""
QUICK_DEATH = 5.0
"""seconds below which a worker's life was too short: after two in a row the next start waits, longer each time"""


def scored_from_dict(data: Mapping[str, Any]) -> Scored:
    answers = [Answer.from_dict(a) for a in data["answers"]]
    seen = [
        RowSeen(answer, s["stats"], None if s["embedding"] is None else tuple(s["embedding"]))
        for answer, s in zip(answers, data["seen"], strict=False)
    ]
    return Scored(answers, data["queue"], data["compute"], tuple(data["batches"]), data["executions"], seen)


def _died() -> FuselineError:
    return FuselineError("worker_died", "the process that computed this request ended", "retry")


@dataclass(eq=False)
class _Child:
    process: subprocess.Popen[bytes]
    writer: asyncio.StreamWriter
    born: float
    pending: dict[int, asyncio.Future[dict[str, Any]]] = field(default_factory=dict)
    streams: dict[int, asyncio.Queue[dict[str, Any]]] = field(default_factory=dict)
    """texts that are being written"""
    rows: int = 0
    keys: set[Key] = field(default_factory=set)
    """what it can answer for"""


class Workers:
    """`settings.workers` processes, each holding every model. A row goes to the one with the fewest rows in it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.cores = max(1, cpu_quota() // settings.workers)
        self.threads = settings.threads or self.cores
        self.lanes = settings.workers * max(1, self.cores // self.threads)
        self._children: list[_Child | None] = [None] * settings.workers
        self._keepers: list[asyncio.Task[None]] = []
        self._loaded: dict[Key, Path] = {}
        self._ids = itertools.count()
        self._restarts = 0
        self._closing = False
        self._changed = asyncio.Condition()
        self._early: list[tuple[subprocess.Popen[bytes], socket.socket]] = []

    def prestart(self) -> None:
        """Start the processes now, before there is a loop to talk to them: they come up while the front still imports
        its own libraries."""
        self._early = [self._start() for _ in range(self.workers)]

    async def start(self) -> None:
        """Start every process; returns when each has one."""
        self._keepers = [asyncio.create_task(self._keep(slot), name=f"worker {slot}") for slot in range(self.workers)]
        async with self._changed:
            await self._changed.wait_for(lambda: all(c is not None for c in self._children))

    async def _keep(self, slot: int) -> None:
        """One worker's slot: start, load, wait for its end, start again."""
        pause, quick = 0.0, 0
        while not self._closing:
            await asyncio.sleep(pause)
            child, reader = await self._spawn()
            reading = asyncio.create_task(self._read(child, reader))
            self._children[slot] = child
            for key, path in list(self._loaded.items()):
                with contextlib.suppress(FuselineError):
                    await self._load_into(child, path, key[0], expected=key[1])
            async with self._changed:
                self._changed.notify_all()
            await reading
            self._children[slot] = None
            self._bury(child)
            self._restarts += 1
            quick = quick + 1 if time.monotonic() - child.born < QUICK_DEATH else 0
            pause = 0.0 if quick < 2 else min(30.0, 0.5 * 2 ** min(quick - 2, 6))
            if not self._closing:
                log.warning("worker %d ended (%s) and is started again", slot, child.process.returncode)

    async def _spawn(self) -> tuple[_Child, asyncio.StreamReader]:
        process, ours = self._early.pop() if self._early else self._start()
        ours.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=ours, limit=2**20)
        return _Child(process, writer, time.monotonic()), reader

    def _start(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        ours, theirs = socket.socketpair()
        arguments = [sys.executable, "-m", "fuseline.serve.worker", str(theirs.fileno())]
        arguments += [self.settings.model_dump_json(), str(self.threads), str(self.cores)]
        process = subprocess.Popen(
            arguments, pass_fds=(theirs.fileno(),), start_new_session=True, env={**MEMORY, **os.environ}
        )
        theirs.close()
        return process, ours

    async def _read(self, child: _Child, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                message = await frames.read(reader)
                if (stream := child.streams.get(message["id"])) is not None:
                    stream.put_nowait(message)
                    continue
                future = child.pending.pop(message["id"], None)
                if future is None or future.done():
                    continue
                if "error" in message:
                    future.set_exception(FuselineError.from_dict(message["error"]))
                else:
                    future.set_result(message["ok"])
        except (asyncio.IncompleteReadError, ConnectionError):
            return

    def _bury(self, child: _Child) -> None:
        for future in child.pending.values():
            if not future.done():
                future.set_exception(_died())
        child.pending.clear()
        for stream in child.streams.values():
            stream.put_nowait({"error": _died().to_dict()})
        child.writer.close()
        if child.process.poll() is None:
            child.process.kill()
        child.process.wait()

    async def _ask(self, child: _Child, message: dict[str, Any], rows: Sequence[Row] = ()) -> Any:
        number = next(self._ids)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        child.pending[number] = future
        try:
            child.writer.writelines(frames.pack({**message, "id": number}, rows))
            await child.writer.drain()
            return await future
        except ConnectionError:
            child.pending.pop(number, None)
            future.cancel()
            raise _died() from None
        except asyncio.CancelledError:
            if child.pending.pop(number, None) is not None:
                child.writer.writelines(frames.pack({"do": "cancel", "of": number, "id": -1}))
            raise

    async def _load_into(self, child: _Child, path: Path, name: str | None, expected: str | None = None) -> ModelInfo:
        info = ModelInfo.from_dict(await self._ask(child, {"do": "load", "path": str(path), "name": name}))
        if expected is not None and info.version != expected:
            # The folder holds another version by now; the watcher brings that in through the front door.
            await self._ask(child, {"do": "unload", "key": [info.name, info.version]})
            raise FuselineError("not_ready", f"{path} does not hold version {expected} any more")
        child.keys.add((info.name, info.version))
        return info

    async def load(self, path: Path, name: str | None = None) -> ModelInfo:
        children = [c for c in self._children if c is not None]
        if not children:
            raise FuselineError("not_ready", "no worker is running", "retry in a moment")
        infos = await asyncio.gather(*(self._load_into(c, path, name) for c in children))
        if len({i.version for i in infos}) != 1:
            raise FuselineError("bad_package", f"{path} changed while it was loaded", "it is tried again")
        self._loaded[infos[0].name, infos[0].version] = path
        return infos[0]

    async def unload(self, key: Key) -> None:
        self._loaded.pop(key, None)
        for child in self._children:
            if child is not None and key in child.keys:
                child.keys.discard(key)
                with contextlib.suppress(FuselineError):
                    await self._ask(child, {"do": "unload", "key": list(key)})

    async def stream(
        self, key: Key, row: Row, wish: Wish, *, deadline: float, seen: bool
    ) -> AsyncGenerator[str | Scored, None]:
        child, number = self._least(key), next(self._ids)
        queue = child.streams[number] = asyncio.Queue()
        child.rows += 1
        ended = False
        try:
            more = {"key": list(key), "deadline": deadline, "seen": seen, "how": dict(wish.how), "stop": [*wish.stop]}
            child.writer.writelines(frames.pack({"do": "stream", "id": number, **more}, [row]))
            while not ended:
                message = await queue.get()
                if "part" in message:
                    yield message["part"]
                    continue
                ended = True
                if "error" in message:
                    raise FuselineError.from_dict(message["error"])
                yield scored_from_dict(message["ok"])
        finally:
            child.rows -= 1
            del child.streams[number]
            if not ended:
                child.writer.writelines(frames.pack({"do": "cancel", "of": number, "id": -1}))

    def _least(self, key: Key) -> _Child:
        able = [c for c in self._children if c is not None and key in c.keys]
        if not able:
            raise FuselineError("not_ready", f"{key[0]} is being started again", "retry in a moment")
        return min(able, key=lambda c: c.rows)

    async def score(self, key: Key, rows: Sequence[Row], *, deadline: float, seen: bool) -> Scored:
        child = self._least(key)
        child.rows += len(rows)
        try:
            message = {"do": "score", "key": list(key), "deadline": deadline, "seen": seen}
            return scored_from_dict(await self._ask(child, message, rows))
        finally:
            child.rows -= len(rows)

    async def explain(self, key: Key, rows: Sequence[Row], options: Options, *, deadline: float) -> list[Explanation]:
        child = self._least(key)
        child.rows += len(rows)
        try:
            message = {"do": "explain", "key": list(key), "deadline": deadline, "options": asdict(options)}
            found = await self._ask(child, message, rows)
            return [Explanation.model_validate(row) for row in found]
        finally:
            child.rows -= len(rows)

    def has(self, key: Key) -> bool:
        return any(c is not None and key in c.keys for c in self._children)

    @property
    def workers(self) -> int:
        return self.settings.workers

    @property
    def restarts(self) -> int:
        return self._restarts

    @property
    def pids(self) -> list[int]:
        return [c.process.pid for c in self._children if c is not None]

    async def close(self) -> None:
        self._closing = True
        for process, ours in self._early:  # started, and never talked to
            ours.close()
            process.wait()
        for child in self._children:
            if child is not None:
                child.writer.close()
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        for child in self._children:
            if child is not None:
                self._bury(child)
