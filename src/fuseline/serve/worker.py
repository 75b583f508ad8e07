"""A worker process, `python -m fuseline.serve.worker FD SETTINGS THREADS CORES`: messages in, answers out.

It ends when the front's end of the socket closes, however the front ended.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any

from fuseline.errors import FuselineError
from fuseline.explain import Options
from fuseline.serve import frames
from fuseline.serve.calls import Wish
from fuseline.serve.engine import Local
from fuseline.serve.scorer import Scored
from fuseline.serve.settings import Settings

log = logging.getLogger(__name__)


def scored_to_dict(scored: Scored) -> dict[str, Any]:
    return {
        "answers": [a.to_dict() for a in scored.answers],
        "queue": scored.queue_seconds,
        "compute": scored.compute_seconds,
        "batches": list(scored.batch_sizes),
        "executions": scored.executions,
        "seen": [{"stats": s.stats, "embedding": s.embedding} for s in scored.seen],
    }


class _Worker:
    def __init__(self, engine: Local, writer: asyncio.StreamWriter) -> None:
        self.engine, self.writer = engine, writer
        self.tasks: dict[int, asyncio.Task[None]] = {}

    async def serve(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                message = await frames.read(reader)
                if message["do"] == "cancel":
                    if task := self.tasks.get(message["of"]):
                        task.cancel()
                    continue
                task = asyncio.create_task(self._one(message))
                self.tasks[message["id"]] = task
                task.add_done_callback(partial(self._forget, message["id"]))
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # the front is gone, and so is everybody who waits

    def _forget(self, number: int, task: asyncio.Task[None]) -> None:
        self.tasks.pop(number, None)

    async def _one(self, message: dict[str, Any]) -> None:
        try:
            done = await (self._stream(message) if message["do"] == "stream" else self._do(message))
            out: dict[str, Any] = {"id": message["id"], "ok": done}
        except FuselineError as error:
            out = {"id": message["id"], "error": error.to_dict()}
        except asyncio.CancelledError:
            return
        except Exception:
            log.exception("a request failed inside the worker")
            out = {"id": message["id"], "error": FuselineError("internal", "internal error").to_dict()}
        self.writer.writelines(frames.pack(out))
        await self.writer.drain()

    async def _stream(self, message: dict[str, Any]) -> dict[str, Any]:
        """The pieces as messages of their own; what is left is the end."""
        key, wish = (message["key"][0], message["key"][1]), Wish(message["how"], tuple(message["stop"]))
        deadline, seen = message["deadline"], message["seen"]
        pieces = self.engine.stream(key, message["rows"][0], wish, deadline=deadline, seen=seen)
        async with aclosing(pieces):
            async for piece in pieces:
                if not isinstance(piece, str):
                    return scored_to_dict(piece)
                self.writer.writelines(frames.pack({"id": message["id"], "part": piece}))
                await self.writer.drain()
        raise AssertionError("a text without an end")

    async def _do(self, message: dict[str, Any]) -> Any:
        match message["do"]:
            case "score":
                key = (message["key"][0], message["key"][1])
                deadline, seen = message["deadline"], message["seen"]
                return scored_to_dict(await self.engine.score(key, message["rows"], deadline=deadline, seen=seen))
            case "explain":
                key = (message["key"][0], message["key"][1])
                options, deadline = Options(**message["options"]), message["deadline"]
                found = await self.engine.explain(key, message["rows"], options, deadline=deadline)
                return [row.model_dump(mode="json") for row in found]
            case "load":
                info = await self.engine.load(Path(message["path"]), message["name"])
                return info.to_dict(profile=True)
            case "unload":
                return await self.engine.unload((message["key"][0], message["key"][1]))
            case _:
                raise AssertionError(message["do"])


async def _main(descriptor: int, settings: Settings, threads: int, cores: int) -> None:
    connection = socket.socket(fileno=descriptor)
    connection.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=connection, limit=2**20)
    await _Worker(Local(settings, threads, cores), writer).serve(reader)


if __name__ == "__main__":
    # Ctrl-C and a supervisor's TERM reach the whole group; only the front decides when a worker ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # The loop that takes and sends messages shares the interpreter with the threads that decode and compute: by default
    # it would wait 5 ms for each of them to let go.
    sys.setswitchinterval(5e-4)
    logging.basicConfig(level=logging.WARNING, format="worker %(process)d: %(message)s")
    asyncio.run(_main(int(sys.argv[1]), Settings.model_validate_json(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])))
