"""A server from its start to its last answer: workers, models, doors, signals."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import uvicorn

from fuseline.errors import FuselineError
from fuseline.serve.calls import ModelInfo, Observer
from fuseline.serve.http import Metrics, State, make_admin, make_app
from fuseline.serve.keys import Keys
from fuseline.serve.search import Shelf
from fuseline.serve.service import Service
from fuseline.serve.settings import Settings
from fuseline.serve.specs import Spec
from fuseline.serve.watch import Served, Watcher, stamp_of
from fuseline.serve.wire import Protocol
from fuseline.serve.workers import Workers

LAG = 0.5
"""seconds between "not ready" and the closed door: connections that are kept open get an answer that closes them"""


async def load_all(specs: Sequence[Spec], service: Service, watcher: Watcher) -> list[ModelInfo]:
    """Load what was asked for, in order: the first package of a name that is no canary and no shadow is its default."""
    infos: list[ModelInfo] = []
    for spec in specs:
        stamp = stamp_of(spec.path)
        default = spec.share is None and not spec.shadow
        first = default and spec.name not in {i.name for i in infos}
        info = await service.load(spec.path, spec.name, share=None if first else spec.share or 0.0, shadow=spec.shadow)
        watcher.add(Served(spec.path, spec.name, info.version, stamp))
        infos.append(info)
    return infos


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: here a signal drains first."""

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


def listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only where the protocol is named: without it every answer waits 40 ms for the
    # caller's delayed acknowledgement.
    connection = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        connection.bind((host, port))
    except OSError as error:
        connection.close()
        raise FuselineError(
            "cannot_listen", f"cannot listen on {host}:{port}: {error.strerror}", "choose another with --port"
        ) from None
    connection.listen(2048)
    return connection


def _uvicorn(app: Any, settings: Settings) -> _Server:
    return _Server(
        uvicorn.Config(
            app,
            http=Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            h11_max_incomplete_event_size=int(settings.max_header_kb * 1024),
            timeout_keep_alive=30,
            timeout_graceful_shutdown=max(1, int(settings.drain_seconds)),
            backlog=2048,
        )
    )


class Running:
    """A server that answers. `port` is the real one."""

    def __init__(
        self,
        specs: Sequence[Spec],
        settings: Settings,
        *,
        observers: Mapping[str, Observer] | None = None,
        metrics: Metrics | None = None,
        state: State = lambda gauges: None,
        engine: Workers | None = None,
        shelf: Shelf | None = None,
    ) -> None:
        self.shelf = shelf or Shelf({})
        self.specs, self.settings, self.metrics, self.state = tuple(specs), settings, metrics, state
        self.keys = Keys(Path(settings.keys)) if settings.keys else None
        self.engine = engine or Workers(settings)
        self.service = Service(self.engine, settings, observers)
        self.watcher = Watcher(self.service, settings.watch_seconds)
        self.socket = listen(settings.host, settings.port)
        self.port: int = self.socket.getsockname()[1]
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Drain and end. A second call ends at once."""
        self._hurry = self._stop.is_set()
        self._stop.set()

    _hurry = False

    async def run(self, ready: Callable[[list[ModelInfo]], None] = lambda infos: None) -> None:
        """Serve until `stop` or a signal. Raises FuselineError where a package cannot be loaded at the start."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(ValueError, RuntimeError):  # not in the main thread: a test's own loop
                loop.add_signal_handler(number, self.stop)
        for spec in self.specs:
            self.service.expect(spec.name)
        app = make_app(
            self.service, self.settings, keys=self.keys, metrics=self.metrics, state=self.state, shelf=self.shelf
        )
        server = _uvicorn(app, self.settings)
        tasks = [asyncio.create_task(server.serve([self.socket]), name="http")]
        tasks.append(asyncio.create_task(self._tick(), name="tick"))
        others: list[Any] = []
        try:
            await self._load(ready)
            if self.settings.admin_port is not None:
                admin = _uvicorn(make_admin(self.service, self.watcher.look), self.settings)
                others.append(admin)
                door = listen("127.0.0.1", self.settings.admin_port)
                tasks.append(asyncio.create_task(admin.serve([door]), name="admin"))
            if self.settings.grpc_port is not None:
                from fuseline.serve.v2 import grpc

                self.grpc = await grpc.start(self.service, self.settings, self.keys)
            if self.settings.watch_seconds:
                tasks.append(asyncio.create_task(self.watcher.run(), name="watch"))
            await self._stop.wait()
            await self._drain()
        finally:
            left = max(0.0, until - time.monotonic()) if (until := self._until) else 0.0
            server.should_exit = True
            server.force_exit = self._hurry
            for other in others:
                other.should_exit = True
            if self.grpc is not None:
                await self.grpc.stop(left)
            await asyncio.wait(tasks[:1], timeout=left + 2)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.service.close()

    grpc: Any = None
    _until = 0.0
    """when the drain is over, whatever is still in flight"""

    async def _load(self, ready: Callable[[list[ModelInfo]], None]) -> None:
        await self.engine.start()
        infos = await load_all(self.specs, self.service, self.watcher)
        self.shelf.check(infos)
        ready(infos)

    async def _tick(self) -> None:
        while True:
            self.state(self.service.gauges())
            await asyncio.sleep(1)

    async def _drain(self) -> None:
        self.service.draining = True
        self._until = time.monotonic() + self.settings.drain_seconds
        if not self._hurry:
            await asyncio.sleep(LAG)
            await self.service.drain()


def serve(
    specs: Sequence[Spec],
    settings: Settings,
    *,
    observers: Mapping[str, Observer] | None = None,
    metrics: Metrics | None = None,
    state: State = lambda gauges: None,
    ready: Callable[[list[ModelInfo], int], None] = lambda infos, port: None,
    engine: Workers | None = None,
    shelf: Shelf | None = None,
) -> None:
    """Serve until a signal. See :class:`Running`. `engine`: workers that were started already. `shelf`: what can be
    searched."""

    async def main() -> None:
        running = Running(
            specs, settings, observers=observers, metrics=metrics, state=state, engine=engine, shelf=shelf
        )
        await running.run(lambda infos: ready(infos, running.port))

    asyncio.run(main())
