"""`fuseline serve`: packages as a service."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fuseline.cli.watching import watch
from fuseline.errors import FuselineError, unknown_kind

if TYPE_CHECKING:
    from fuseline.serve.calls import ModelInfo
    from fuseline.serve.settings import Settings
    from fuseline.serve.specs import Spec

NAME = "serve"


def command(
    models: Annotated[list[str], typer.Argument(help="packages, each PATH or NAME=PATH", show_default=False)],
    host: Annotated[str, typer.Option(help="address to listen on; 0.0.0.0: every interface")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="HTTP port; 0: any free one")] = 8080,
    grpc_port: Annotated[int | None, typer.Option(help="also speak gRPC here (extra: grpc)")] = None,
    admin_port: Annotated[
        int | None, typer.Option(help="management routes, on 127.0.0.1 alone; default: there are none")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="processes that compute; each holds every model")] = 1,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1, help="threads of one batch; default: all cores, quickest single answer; 1: most answers a second"
        ),
    ] = None,
    canary: Annotated[
        list[str] | None, typer.Option(help="NAME=PATH:SHARE, a version that gets a share of a model's traffic")
    ] = None,
    shadow: Annotated[
        list[str] | None, typer.Option(help="NAME=PATH, a version that gets a copy of a model's traffic")
    ] = None,
    keys: Annotated[
        Path | None, typer.Option(help="file of API keys, see `fuseline keys`; default: none asked")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="rows of a batch at most")] = 32,
    wait_ms: Annotated[float, typer.Option(min=0, help="how long a row may wait for company")] = 2.0,
    queue: Annotated[int, typer.Option(min=1, help="rows of a model in the house; more are refused with 429")] = 256,
    objective_ms: Annotated[
        float, typer.Option(min=1, help="latency objective: whoever would wait longer is refused at once")
    ] = 1000.0,
    deadline_ms: Annotated[float, typer.Option(min=1, help="longest that a request may take")] = 30_000.0,
    max_rows: Annotated[int, typer.Option(min=1, help="rows of one request")] = 256,
    max_explain_rows: Annotated[
        int, typer.Option(min=1, help="answers that one request for explanations may take")
    ] = 1024,
    max_body_mb: Annotated[float, typer.Option(min=0.01, help="a body, as sent and decompressed")] = 32.0,
    drain_seconds: Annotated[float, typer.Option(min=0, help="how long SIGTERM waits for requests")] = 20.0,
    watch_seconds: Annotated[float, typer.Option(min=0, help="how often replaced packages are looked for")] = 2.0,
    engine: Annotated[str, typer.Option(help="local: processes of this server; ray: replicas on Ray Serve")] = "local",
    min_replicas: Annotated[int, typer.Option(min=1, help="ray: replicas at least")] = 1,
    max_replicas: Annotated[int, typer.Option(min=1, help="ray: replicas at most")] = 4,
    target_ongoing: Annotated[
        float, typer.Option(min=0.1, help="ray: requests in flight a replica that call for another one")
    ] = 8.0,
    upscale_seconds: Annotated[float, typer.Option(min=0, help="ray: load must last this long to add one")] = 10.0,
    downscale_seconds: Annotated[float, typer.Option(min=0, help="ray: quiet must last this long to end one")] = 120.0,
    replica_cpus: Annotated[float, typer.Option(min=0.1, help="ray: processors of a replica")] = 1.0,
    ray_address: Annotated[str | None, typer.Option(help="ray: a running cluster; default: one is started")] = None,
    record: Annotated[Path | None, typer.Option(help="folder for a sampled log of statistics and answers")] = None,
    record_share: Annotated[float, typer.Option(min=0, max=1, help="share of the requests that are kept")] = 1.0,
    record_mb: Annotated[float, typer.Option(min=1, help="size of the log at most; the oldest goes first")] = 256.0,
    redact: Annotated[
        list[str] | None,
        typer.Option(help="not kept in the log: an input, an `input.statistic`, or: texts, labels, embeddings"),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option(help="table of labels that come later; with --record: the live accuracy")
    ] = None,
    drift_ignore: Annotated[list[str] | None, typer.Option(help="an input or statistic that may drift")] = None,
    drift: Annotated[bool, typer.Option(help="compare recent rows with the training profile")] = True,
    index: Annotated[
        list[str] | None,
        typer.Option(help="[NAME=]DIR, an index of `fuseline index`: POST /search asks it (extra: index)"),
    ] = None,
    console: Annotated[bool, typer.Option(help="a page at /")] = True,
    json_logs: Annotated[bool, typer.Option(help="one JSON object a line on standard error")] = False,
    traces: Annotated[bool, typer.Option(help="OpenTelemetry spans (extra: otel; OTEL_* variables say where)")] = False,
) -> None:
    """Serve packages over HTTP (and gRPC): a page for people, the Open Inference Protocol for machines.

    No torch is needed. Try it: `fuseline serve runs/NAME`, then open http://127.0.0.1:8080/ .

    A package that is replaced in place is loaded beside the old one, checked, and takes over without a lost request.
    SIGTERM drains: what is in flight is answered, then the server ends.
    """
    _need_serving()
    from fuseline.serve.settings import Settings
    from fuseline.serve.specs import spec_of

    settings = Settings(
        host=host,
        port=port,
        grpc_port=grpc_port,
        admin_port=admin_port,
        workers=workers,
        threads=threads,
        keys=None if keys is None else str(keys),
        max_batch_rows=batch,
        max_wait_ms=wait_ms,
        queue_rows=queue,
        objective_ms=objective_ms,
        deadline_ms=deadline_ms,
        max_rows=max_rows,
        max_explain_rows=max_explain_rows,
        max_body_mb=max_body_mb,
        drain_seconds=drain_seconds,
        watch_seconds=watch_seconds,
        console=console,
    )
    specs = [spec_of(text) for text in models]
    specs += [_canary(text) for text in canary or ()]
    specs += [spec_of(text, shadow=True) for text in shadow or ()]
    options: dict[str, Any] = {
        "objective_ms": objective_ms,
        "record": None if record is None else record.absolute(),
        "record_share": record_share,
        "record_mb": record_mb,
        "redact": redact or (),
        "labels": None if labels is None else labels.absolute(),
        "drift": drift,
        "drift_ignore": drift_ignore or (),
        "json_logs": json_logs,
        "traces": traces,
    }
    match engine:
        case "local":
            _serve(specs, settings, options, index or ())
        case "ray":
            from fuseline.serve.ray import Scale, serve_on_ray

            if grpc_port is not None or admin_port is not None or workers != 1 or index:
                raise FuselineError(
                    "bad_request",
                    "--grpc-port, --admin-port, --workers and --index are not for --engine ray",
                    "replicas take the place of workers; see docs/serving.md",
                )
            scale = Scale(
                min_replicas=min_replicas,
                max_replicas=max_replicas,
                target_ongoing=target_ongoing,
                upscale_seconds=upscale_seconds,
                downscale_seconds=downscale_seconds,
                cpus=replica_cpus,
            )
            watching = partial(watch, **options)
            serve_on_ray(specs, settings, scale, watching=watching, address=ray_address, ready=_tell(settings))
        case _:
            raise unknown_kind("engine", engine, ("local", "ray"))


def _serve(specs: list[Spec], settings: Settings, options: dict[str, Any], indexes: Sequence[str]) -> None:
    from fuseline.serve.search import Shelf
    from fuseline.serve.workers import Workers

    shelf = Shelf.open(indexes)

    engine = Workers(settings)
    engine.prestart()
    from fuseline.serve.run import serve

    with watch(**options) as seen:
        serve(
            specs,
            settings,
            observers=seen.observers,
            metrics=seen.metrics,
            state=seen.update,
            ready=_tell(settings),
            engine=engine,
            shelf=shelf,
        )


def _canary(text: str) -> Spec:
    from fuseline.serve.specs import spec_of

    path, colon, share = text.rpartition(":")
    try:
        value = float(share)
    except ValueError:
        value = -1.0
    if not colon or not 0 < value < 1:
        raise FuselineError("bad_request", f"{text!r} gives no share between 0 and 1", "--canary NAME=PATH:0.1")
    return spec_of(path, share=value)


def _tell(settings: Any) -> Any:
    from rich.console import Console

    console = Console(stderr=True, highlight=False)

    def ready(infos: list[ModelInfo], port: int) -> None:
        where = f"http://{'127.0.0.1' if settings.host in ('0.0.0.0', '::') else settings.host}:{port}"
        for info in infos:
            console.print(f"serving {info.name} version {info.version}: {info.task} of {', '.join(info.targets)}")
        console.print(f"{where}/ the page, {where}/v1/models the API, {where}/v2 the protocol", markup=False)

    return ready


def _need_serving() -> None:
    import importlib.util

    missing = [m for m in ("fastapi", "uvicorn", "prometheus_client") if importlib.util.find_spec(m) is None]
    if missing:
        raise FuselineError("missing_extra", f"serving needs {', '.join(missing)}", "pip install 'fuseline[serve]'")
