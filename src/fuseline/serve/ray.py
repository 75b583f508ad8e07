"""The same service as a Ray Serve deployment: replicas come and go with the load, on one machine or on many.

Each replica is a whole :class:`Service` over :class:`Local`, with the routes of :func:`make_app`, its own watcher of
the package folders and its own observers. Ray's proxy stands in front and sends each request to the less busy of two
replicas.

What the plain server has and this one has not:

- gRPC and the management port. A package that is replaced in place is still noticed, by each replica in its own
  moment: for a few seconds two versions answer. Canaries and shadows work, since the request id alone chooses.
- One place that knows everything: `/metrics` is not served, and the page's charts, `/v1/status`, `/v2/.../stats` and
  the rate limit of a key are those of the replica that answered. Ray exports request counts and latencies of its own.
- The limits on headers and on slow readers, which are the proxy's; and 503 with Retry-After while the service ends:
  what came before is answered, then the proxy says 404.
- Silence: Ray's processes listen to one another on ports of every interface, guarded by a token of Ray's. Only the
  service's own port keeps to `host`. Run it where the network is yours.

Ray moves our classes and options between its own processes with cloudpickle; nothing that a caller sends is unpickled.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from pydantic import Field
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fuseline.errors import FuselineError
from fuseline.recipe import Frozen
from fuseline.runtime import load
from fuseline.runtime.raycluster import joined
from fuseline.serve.calls import Gauge, ModelInfo, Observer
from fuseline.serve.describe import describe
from fuseline.serve.doors import request_id
from fuseline.serve.engine import Local
from fuseline.serve.http import make_app
from fuseline.serve.keys import Keys
from fuseline.serve.run import listen, load_all
from fuseline.serve.service import Service
from fuseline.serve.settings import Settings
from fuseline.serve.specs import Spec
from fuseline.serve.watch import Watcher

APP = "fuseline"


class Scale(Frozen):
    """How many replicas there are, and when that changes. Descriptions are the help texts of `fuseline serve`."""

    min_replicas: int = Field(1, ge=1, description="replicas that always run")
    max_replicas: int = Field(4, ge=1, description="replicas at most")
    target_ongoing: float = Field(8.0, gt=0, description="requests in flight that one replica should have")
    upscale_seconds: float = Field(10.0, ge=0, description="how long there must be too many before a replica is added")
    downscale_seconds: float = Field(120.0, ge=0, description="how long there must be too few before one is taken away")
    window_seconds: float = Field(
        15.0, gt=10, description="span over which requests in flight are averaged; Ray counts them every 10 s"
    )
    cpus: float = Field(1.0, gt=0, description="cores of a replica: what Ray reserves, and its compute threads")


class Seen(Protocol):
    """What watches one replica."""

    @property
    def observers(self) -> Mapping[str, Observer]: ...

    def update(self, gauges: Sequence[Gauge]) -> None: ...


Watching = Callable[[], AbstractContextManager[Seen]]
"""Makes a replica's observers, which are closed at its end. This travels to the replica: a function of a module, or a
partial of one with plain arguments. Observers themselves hold threads and files, and stay where they are made."""


class Replica:
    """One replica. Ray calls it by the names that it knows."""

    async def __init__(  # type: ignore[misc]  # Ray awaits it
        self, specs: Sequence[Spec], settings: str, threads: int, watching: Watching | None
    ) -> None:
        self.settings = Settings.model_validate_json(settings)
        self.stack = ExitStack()
        self.seen = None if watching is None else self.stack.enter_context(watching())
        observers = None if self.seen is None else self.seen.observers
        self.service = Service(Local(self.settings, threads, threads), self.settings, observers)
        self.watcher = Watcher(self.service, self.settings.watch_seconds)
        await load_all(specs, self.service, self.watcher)  # warmed up: requests come only after this
        self.tasks = [asyncio.create_task(self._tick(), name="tick")]
        if self.settings.watch_seconds:
            self.tasks.append(asyncio.create_task(self.watcher.run(), name="watch"))

    def __serve_build_asgi_app__(self) -> ASGIApp:  # Ray's name for it
        keys = Keys(Path(self.settings.keys)) if self.settings.keys else None
        return _one_id(make_app(self.service, self.settings, keys=keys))

    async def check_health(self) -> None:
        """Raises where the replica cannot answer; Ray then starts another in its place."""
        if not self.service.draining and not self.service.ready():
            raise RuntimeError("a model is not loaded")

    async def _tick(self) -> None:
        while self.seen is not None:
            self.seen.update(self.service.gauges())
            await asyncio.sleep(1)

    async def __del__(self) -> None:
        """Called once, after Ray sends no more requests here and those in flight are answered."""
        if not hasattr(self, "tasks"):
            return  # its start failed
        await self.service.drain()
        for task in self.tasks:
            task.cancel()
        await self.service.close()
        self.stack.close()


def _one_id(app: ASGIApp) -> ASGIApp:
    """Ray's proxy adds the request id to every answer; ours, where it is the same, would be there twice."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        id = request_id(scope).encode() if scope["type"] == "http" else b""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [h for h in message.get("headers", ()) if h != (b"x-request-id", id)]
            await send(message)

        await app(scope, receive, sending)

    return wrapped


@contextlib.contextmanager
def on_ray(
    specs: Sequence[Spec],
    settings: Settings,
    scale: Scale,
    *,
    watching: Watching | None = None,
    address: str | None = None,
) -> Iterator[tuple[list[ModelInfo], int]]:
    """A deployment that answers, and its port; taken down, with what is in flight answered, at the end.

    Args:
        specs: the packages; on a cluster their paths must be the same on every machine.
        settings: as of the plain server. `grpc_port`, `admin_port`, `workers` and `max_header_kb` have no effect.
        scale: the number of replicas.
        watching: makes the observers of a replica, in the replica.
        address: a Ray cluster; None: the one that runs on this machine, or else a new one for as long as this lasts;
            "local": a new one in any case.

    Raises:
        FuselineError: ``missing_extra``, ``cannot_listen``, ``no_such_cluster``, ``cannot_deploy``, or what is wrong
            with a package.
    """
    if scale.min_replicas > scale.max_replicas:
        raise FuselineError("bad_request", "fewer replicas at most than at least", "raise --max-replicas")
    # A broken package is told here, in one line, and not out of a replica's log.
    infos = [describe(load(spec.path, threads=1), spec.name) for spec in specs]
    # A replica may start in another folder. Links stay: one that is turned to a new package is a replaced package.
    specs = tuple(replace(spec, path=spec.path.absolute()) for spec in specs)
    keys = settings.keys and str(Path(settings.keys).absolute())
    plain = settings.model_copy(update={"keys": keys}).model_dump_json()
    with joined(address, cpus=math.ceil(scale.min_replicas * scale.cpus)):
        from ray import serve
        from ray.serve.config import ProxyLocation
        from ray.serve.schema import LoggingConfig

        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        with listen(settings.host, settings.port) as probe:  # told at once, where Ray would try for minutes
            port = int(probe.getsockname()[1])
        quiet = LoggingConfig(enable_access_log=False, log_level="WARNING")
        serve.start(
            proxy_location=ProxyLocation.EveryNode,
            http_options={"host": settings.host, "port": port},
            logging_config=quiet,
        )
        threads = settings.threads or max(1, int(scale.cpus))
        deployment: Any = serve.deployment(
            serve.ingress()(Replica),
            name="Replica",
            ray_actor_options={"num_cpus": scale.cpus},
            # The service itself refuses what it cannot answer in time, with 429; Ray's own limits come after that.
            max_ongoing_requests=settings.queue_rows + 64,
            max_queued_requests=settings.queue_rows,
            graceful_shutdown_wait_loop_s=0.5,
            graceful_shutdown_timeout_s=settings.drain_seconds + 5,
            health_check_period_s=5,
            autoscaling_config={
                "min_replicas": scale.min_replicas,
                "max_replicas": scale.max_replicas,
                "target_ongoing_requests": scale.target_ongoing,
                "upscale_delay_s": scale.upscale_seconds,
                "downscale_delay_s": scale.downscale_seconds,
                "look_back_period_s": scale.window_seconds,
            },
        )
        application = deployment.bind(specs, plain, threads, watching)
        try:
            try:
                serve.run(application, name=APP, route_prefix="/", logging_config=quiet)
            except RuntimeError as error:
                raise FuselineError("cannot_deploy", f"Ray could not start a replica: {error}", "") from None
            _wait_for_door(settings.host, port)
            yield infos, port
        finally:
            serve.delete(APP)


def serve_on_ray(
    specs: Sequence[Spec],
    settings: Settings,
    scale: Scale,
    *,
    watching: Watching | None = None,
    address: str | None = None,
    ready: Callable[[list[ModelInfo], int], None] = lambda infos, port: None,
) -> None:
    """Serve until SIGTERM or Ctrl-C. See :func:`on_ray`."""
    stop = threading.Event()
    with on_ray(specs, settings, scale, watching=watching, address=address) as (infos, port):
        before = {n: signal.signal(n, lambda *_: stop.set()) for n in (signal.SIGTERM, signal.SIGINT)}
        try:
            ready(infos, port)
            stop.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _wait_for_door(host: str, port: int, seconds: float = 60.0) -> None:
    """Raises ``cannot_listen`` where the proxy does not lead to a replica that is ready."""
    where = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    url = f"http://{f'[{where}]' if ':' in where else where}:{port}/readyz"
    until = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            if answer.status == 200:
                return
        if time.monotonic() > until:
            hint = "if Ray Serve ran on this cluster before, its host and port count: serve shutdown, or give them"
            raise FuselineError("cannot_listen", f"nothing is ready at {url}", hint)
        time.sleep(0.2)
